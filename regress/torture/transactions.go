package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// schema is the same in each database. A transaction has a row in ledger, with the number of the rows that it has elsewhere;
// each of those names its transaction, and chk shows whether it was read with the right catalogs.
const schema = `
	create table ledger (tx text primary key, writer text, seq int, total int, n bigint);
	create table events (tx text, part int, chk text, pad text, primary key (tx, part));
	create table tally (writer text primary key, n bigint);
	create table counter (id int primary key, n bigint);
	insert into counter values (1, 0);
	insert into tally select 'w' || g, 0 from generate_series(1, 20) g;`

const publications = `
	create publication everything for all tables;
	create publication replicated for table ledger, events, tally, counter;`

// A step of a transaction, and how long it rests afterwards.
type step struct {
	sql  string
	rest time.Duration
}

// How a transaction ends.
const (
	commit = iota
	rollback
	commitPrepared
	rollbackPrepared
)

// A transaction that a writer is about to run.
type transaction struct {
	id      string
	kind    string
	steps   []step
	total   int
	end     int
	atEnd   time.Duration // between prepare and the end
	ordered bool          // takes a number at its end, under a lock
}

func (x *transaction) add(format string, args ...any) {
	x.steps = append(x.steps, step{sql: fmt.Sprintf(format, args...)})
}

func (x *transaction) rest(d time.Duration) { x.steps[len(x.steps)-1].rest = d }

// rows adds rows that will be there.
func (x *transaction) rows(n int) {
	x.lost(x.total+1, n)
	x.total += n
}

// lost adds rows that a rollback will take back.
func (x *transaction) lost(first, n int) {
	x.add("insert into events select '%s', g, '%s/' || g, repeat(md5(g::text), 4) from generate_series(%d, %d) g", x.id, x.id, first, first+n-1)
}

func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)))
}

var kinds = []struct {
	name   string
	weight int
	build  func(*transaction, *rand.Rand, string)
}{
	{"small", 40, (*transaction).small},
	{"subtransactions", 12, (*transaction).subtransactions},
	{"many subtransactions", 4, (*transaction).manySubtransactions},
	{"large", 6, (*transaction).large},
	{"long", 8, (*transaction).long},
	{"DDL", 14, (*transaction).ddl},
}

// newTransaction makes the next transaction of a writer.
func newTransaction(rng *rand.Rand, id, writer string) *transaction {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	pick := rng.IntN(total)
	for _, k := range kinds {
		if pick -= k.weight; pick < 0 {
			x := &transaction{id: id, kind: k.name, ordered: rng.IntN(2) == 0}
			k.build(x, rng, writer)
			x.decideEnd(rng)
			return x
		}
	}
	panic("unreachable")
}

func (x *transaction) decideEnd(rng *rand.Rand) {
	switch pick := rng.IntN(100); {
	case pick < 75:
	case pick < 82:
		x.end = rollback
	case pick < 98:
		x.end = commitPrepared
	default:
		x.end = rollbackPrepared
	}
	if *major >= firstAbortCheck && (strings.Contains(x.sql(), "savepoint") || strings.Contains(x.sql(), "exception")) {
		// Decoding takes subtransactions of one that was rolled back for streamed, and the plugin crashes
		// (ReorderBufferTruncateTXN, reorderbuffer.c).
		switch x.end {
		case rollback:
			x.end = commit
		case rollbackPrepared:
			x.end = commitPrepared
		}
	}
	if *major < firstCatChange && x.end == commitPrepared && strings.Contains(x.sql(), "create table") {
		// If the server is started before it is committed, a slot may come to begin at that start, and decoding from there
		// does not know what it changed (SnapBuildSerializationPoint, snapbuild.c).
		x.end = commit
	}
	if x.kind == "long" {
		// It would hold up those who wait for the number.
		x.ordered = false
	}
	if x.end >= commitPrepared {
		x.atEnd = between(rng, 0, 300*time.Millisecond)
		if rng.IntN(4) == 0 && !x.ordered {
			x.atEnd = between(rng, 0, 2*time.Second)
		}
	}
}

// sql is the whole of its steps.
func (x *transaction) sql() string {
	var b strings.Builder
	for _, s := range x.steps {
		b.WriteString(s.sql + ";")
	}
	return b.String()
}

func (x *transaction) small(rng *rand.Rand, _ string) { x.rows(1 + rng.IntN(4)) }

func (x *transaction) subtransactions(rng *rand.Rand, _ string) {
	x.rows(1)
	for i := range 2 + rng.IntN(5) {
		x.add("savepoint s%d", i)
		if rng.IntN(3) == 0 {
			x.lost(100_000, 1+rng.IntN(3))
			x.add("rollback to s%d", i)
		} else {
			x.rows(1 + rng.IntN(3))
			if rng.IntN(2) == 0 {
				x.add("release s%d", i)
			}
		}
	}
}

// manySubtransactions has more of them than a server remembers of each transaction (PGPROC_MAX_CACHED_SUBXIDS, proc.h).
func (x *transaction) manySubtransactions(rng *rand.Rand, _ string) {
	n := 70 + rng.IntN(30)
	x.add(`do $$ begin for i in 1..%d loop
		begin
			insert into events values ('%s', i, '%s/' || i, '');
			if i %% 7 = 0 then raise exception 'taken back'; end if;
		exception when raise_exception then null;
		end;
	end loop; end $$`, n, x.id, x.id)
	x.rest(between(rng, 0, 50*time.Millisecond))
	x.total = n - n/7
	x.add("insert into events values ('%s', 1000000, '%s/1000000', '')", x.id, x.id)
	x.total++
}

func (x *transaction) large(rng *rand.Rand, _ string) {
	x.rows(300 + rng.IntN(600))
	x.add("savepoint a")
	x.lost(100_000, 200+rng.IntN(400))
	x.add("rollback to a")
	x.rest(between(rng, 0, 100*time.Millisecond))
	x.add("savepoint b")
	x.rows(200 + rng.IntN(600))
}

func (x *transaction) long(rng *rand.Rand, writer string) {
	x.rows(1)
	x.rest(between(rng, 0, 2*time.Second))
	if rng.IntN(3) == 0 {
		x.changeTable(rng, writer)
		x.rest(between(rng, 0, time.Second))
	}
	x.add("savepoint a")
	x.rows(1 + rng.IntN(400))
	x.rest(between(rng, 0, time.Second))
	x.rows(1)
}

func (x *transaction) ddl(rng *rand.Rand, writer string) {
	if rng.IntN(2) == 0 {
		x.newTable(rng, writer)
	} else {
		x.changeTable(rng, writer)
	}
}

// into adds a row of a writer's own table.
func (x *transaction) into(table string) {
	x.total++
	x.add("insert into %s (tx, part, chk) values ('%s', %d, '%s/%d')", table, x.id, x.total, x.id, x.total)
}

// newTable replaces a writer's own table.
func (x *transaction) newTable(rng *rand.Rand, writer string) {
	table := "d_" + writer
	x.add("drop table if exists %s", table)
	switch rng.IntN(3) {
	case 0:
		x.add("create table %s (tx text, part int, chk text)", table)
	case 1:
		x.add("create table %s (gone int, chk text, part bigint, filler text default 'f', tx text)", table)
		x.add("alter table %s drop column gone", table)
	case 2:
		x.add("create table %s (chk text, part numeric, tx varchar(200))", table)
	}
	x.into(table)
	x.add("alter table %s add column x text default 'x'", table)
	x.into(table)
	if rng.IntN(2) == 0 {
		x.takeBack(table)
	}
	x.into(table)
}

// takeBack changes a table and rolls that back. VACUUM FULL of a catalog must not meet it: it takes the row of a running transaction
// for dead where one that replaces it was taken back, and hint bits do not say so, as after a crash
// (rewrite_heap_dead_tuple, rewriteheap.c). The table is lost then, on every version.
func (x *transaction) takeBack(table string) {
	x.add("select pg_advisory_xact_lock_shared(%d)", takenBack)
	x.add("savepoint a")
	x.add("alter table %s drop column x, add column y int default 7", table)
	x.add("insert into %s (tx, part, chk) values ('%s', -1, 'taken back')", table, x.id)
	x.add("rollback to a")
}

// takenBack is the advisory lock of transactions that have rolled changes to catalogs back, and of VACUUM FULL.
const takenBack = 1

// changeTable changes a writer's own table, which may have been lost in a failover.
func (x *transaction) changeTable(rng *rand.Rand, writer string) {
	table := "d_" + writer
	x.add("create table if not exists %s (tx text, part int, chk text)", table)
	x.into(table)
	switch rng.IntN(5) {
	case 0:
		x.add("alter table %s add column if not exists a int default %d", table, rng.IntN(100))
		x.into(table)
		x.add("alter table %s drop column a", table)
	case 1:
		// a rewrite
		x.add("alter table %s alter column part type %s", table, []string{"int", "bigint", "numeric"}[rng.IntN(3)])
	case 2:
		x.add("truncate %s", table)
	case 3:
		x.add("alter table %s rename to %s_aside", table, table)
		x.into(table + "_aside")
		x.add("alter table %s_aside rename to %s", table, table)
	case 4:
		x.add("alter table %s add column if not exists z text", table)
		x.add("create index on %s (part)", table)
	}
	x.into(table)
}

// last is what every transaction does before it ends.
func (x *transaction) last(writer string, seq int) string {
	sql := fmt.Sprintf("update tally set n = n + 1 where writer = '%s'; ", writer)
	if !x.ordered {
		return sql + fmt.Sprintf("insert into ledger values ('%s', '%s', %d, %d, null)", x.id, writer, seq, x.total)
	}
	return sql + fmt.Sprintf(`with c as (update counter set n = n + 1 where id = 1 returning n)
		insert into ledger select '%s', '%s', %d, %d, n from c`, x.id, writer, seq, x.total)
}
