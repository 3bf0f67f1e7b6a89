package publisher

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/remote"
)

// known has what was found of sequences. To read by oid takes the publisher half the time that looking their names up does,
// and half of that again where the catalogs are known to be the same, so that nothing but positions is to be read. An oid is a
// guess otherwise, which the statement checks: what is not there under its name is looked up. Names are kept as hashes,
// since 100 000 of them would be most of the worker's memory. Two readers may use it at the same time.
type known struct {
	mutex        sync.Mutex
	seed, second maphash.Seed
	sequences    map[uint64]knownSequence
	definitions  []host.SequenceDefinition
	numbers      map[host.SequenceDefinition]uint32 // of the definitions
	transactions string                             // those that had ended before the catalogs were read
	catalogs     string                             // the digest of them, and of where they are
	version      uint32                             // of the catalogs; 0: it is not known whether they have changed
	versions     uint32                             // how many there were
}

// knownSequence is what was found of a sequence. Its definition is that of one version of the catalogs.
type knownSequence struct {
	check      uint32 // of the name, whose first hash may be another one's too
	oid        uint32
	version    uint32
	definition uint32
}

func newKnown() known {
	return known{
		seed: maphash.MakeSeed(), second: maphash.MakeSeed(),
		sequences: make(map[uint64]knownSequence), numbers: make(map[host.SequenceDefinition]uint32),
	}
}

func (k *known) key(n host.SequenceName) (key uint64, check uint32) {
	return maphash.Comparable(k.seed, n), uint32(maphash.String(k.second, n.Name))
}

func (k *known) count() int {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return len(k.sequences)
}

func (k *known) find(n host.SequenceName) (knownSequence, bool) {
	key, check := k.key(n)
	k.mutex.Lock()
	defer k.mutex.Unlock()
	s, ok := k.sequences[key]
	return s, ok && s.check == check
}

// isCurrent tells whether all of what was found is still so.
func (k *known) isCurrent(s knownSequence) bool { return k.version != 0 && s.version == k.version }

// put remembers a sequence; only one without a problem keeps it as long as the catalogs do.
func (k *known) put(n host.SequenceName, oid uint32, v *Value) {
	key, check := k.key(n)
	s := knownSequence{check: check, oid: oid}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if v.Problem == None {
		s.version, s.definition = k.version, k.number(v.Definition)
	}
	k.sequences[key] = s
}

// forget forgets the oid of a sequence.
func (k *known) forget(n host.SequenceName) {
	key, _ := k.key(n)
	k.mutex.Lock()
	defer k.mutex.Unlock()
	delete(k.sequences, key)
}

// number is that of a definition; called with the mutex held.
func (k *known) number(d host.SequenceDefinition) uint32 {
	n, ok := k.numbers[d]
	if !ok {
		n = uint32(len(k.definitions))
		k.numbers[d] = n
		k.definitions = append(k.definitions, d)
	}
	return n
}

// definitionOf is the definition of a sequence that is current.
func (k *known) definitionOf(s knownSequence) host.SequenceDefinition {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.definitions[s.definition]
}

// see takes in what the catalogs are like once these transactions have ended; empty if that is not known.
func (k *known) see(catalogs, transactions string) {
	k.transactions = transactions
	switch {
	case catalogs == "":
		k.version = 0
	case catalogs != k.catalogs:
		k.catalogs = catalogs
		k.versions++
		k.version = k.versions
	default:
		k.version = k.versions
	}
}

// trim forgets all once most of it is about sequences that are not read any more.
func (k *known) trim(read int) {
	if most := 2*read + 1000; len(k.sequences) > most || len(k.definitions) > most {
		clear(k.sequences)
		clear(k.numbers)
		k.definitions = nil
	}
}

// isStill tells whether nothing can have changed since the catalogs were last seen.
func (k *known) isStill(transactions string) bool {
	return k.version != 0 && transactions != "" && transactions == k.transactions
}

// readCatalogs finds out whether what is known of sequences is still so, unless pg_class is larger than that.
func (c *Client) readCatalogs(ctx context.Context, bytes int) error {
	if bytes == 0 || c.first.major < firstHash || c.mark.InRecovery {
		c.known.see("", "")
		return nil
	}
	if c.known.isStill(c.mark.transactions) {
		return nil
	}
	var digest *string
	err := c.first.do(ctx, "read the catalogs", func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, catalogsSQL, pgx.QueryExecModeCacheStatement, bytes)
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, []any{&digest}, func() error { return nil })
		return err
	})
	if err != nil || digest == nil {
		c.known.see("", "")
		return err
	}
	c.known.see(fmt.Sprintf("%s %d %d", *digest, c.mark.SystemIdentifier, c.mark.Timeline), c.mark.transactions)
	return nil
}

// readKnown reads the sequences of which enough is known, and returns those that are still to be read.
func (r *reader) readKnown(ctx context.Context, b *batch) ([]int, error) {
	which, found := make([]int, len(b.names)), make([]knownSequence, len(b.names))
	for i, n := range b.names {
		which[i] = i
		found[i], _ = r.client.known.find(n)
	}
	// A standby has to be asked more than that.
	if r.client.mark.InRecovery {
		return which, nil
	}
	which, err := r.readByOID(ctx, b, which, found, r.client.known.isCurrent, r.readCurrent)
	if err != nil {
		return nil, err
	}
	return r.readByOID(ctx, b, which, found, func(s knownSequence) bool { return s.oid != 0 }, r.readNamed)
}

// numbered is what is known of the sequences of a batch that have these numbers.
type numbered struct {
	which []int
	oids  []uint32
	known []knownSequence // of the whole batch
}

// readByOID reads those of some sequences of which enough is known, and returns those that are still to be read.
func (r *reader) readByOID(ctx context.Context, b *batch, which []int, found []knownSequence, enough func(knownSequence) bool,
	f func(ctx context.Context, conn *pgx.Conn, b *batch, some *numbered) error,
) ([]int, error) {
	some := numbered{known: found, which: make([]int, 0, len(which)), oids: make([]uint32, 0, len(which))}
	for _, n := range which {
		if enough(found[n]) {
			some.which, some.oids = append(some.which, n), append(some.oids, found[n].oid)
		}
	}
	if len(some.which) == 0 {
		return which, nil
	}
	var refused *pgconn.PgError
	err := r.do(ctx, "read the sequences", func(ctx context.Context, conn *pgx.Conn) error {
		err := f(ctx, conn, b, &some)
		refused = ofOne(err)
		return err
	})
	switch {
	case err == nil:
		return slices.DeleteFunc(which, func(n int) bool { return b.values[n].Definition.Type != 0 }), nil
	case refused == nil:
		return nil, err
	}
	// One of them may be gone, or locked: all are looked up, which finds out.
	for _, n := range some.which {
		b.values[n] = Value{}
	}
	if refused.Code == codeLockTimeout {
		return r.leaveLocked(ctx, b, which)
	}
	return which, nil
}

// readCurrent fills in the values of sequences of which only the positions can have changed.
func (r *reader) readCurrent(ctx context.Context, conn *pgx.Conn, b *batch, some *numbered) error {
	rows, err := conn.Query(ctx, currentSQL(r.major), pgx.QueryExecModeCacheStatement, some.oids)
	if err != nil {
		return err
	}
	var last []pgtype.Int8
	var uncalled []int64
	_, err = pgx.ForEachRow(rows, []any{&last, &uncalled}, func() error { return nil })
	if err != nil {
		return err
	}
	if len(last) != len(some.which) {
		return fmt.Errorf("asked for %d sequences, got %d", len(some.which), len(last))
	}
	fill := func(i int, p host.SequencePosition) {
		n := some.which[i]
		b.values[n] = Value{Definition: r.client.known.definitionOf(some.known[n]), Position: p}
	}
	for i := range last {
		if last[i].Valid {
			fill(i, host.SequencePosition{LastValue: last[i].Int64, IsCalled: true})
		}
	}
	for _, ord := range uncalled {
		i := int(ord) - 1
		fill(i, host.SequencePosition{LastValue: last[i].Int64})
		if !last[i].Valid {
			b.uncalled = append(b.uncalled, some.which[i])
		}
	}
	return nil
}

// readNamed fills in the values of the sequences that have their oids and names.
func (r *reader) readNamed(ctx context.Context, conn *pgx.Conn, b *batch, some *numbered) error {
	// The plan suits any oids, so that the session keeps it.
	rows, err := conn.Query(ctx, knownSQL(r.major), pgx.QueryExecModeCacheStatement, some.oids)
	if err != nil {
		return err
	}
	var ord int
	var name string
	var readable, isNull bool
	var typ int64
	var v Value
	_, err = pgx.ForEachRow(rows, []any{
		&ord, &name, &readable, &typ, &v.Definition.Start, &v.Definition.Increment, &v.Definition.Min, &v.Definition.Max,
		&v.Definition.Cycle, &isNull, &v.Position.LastValue, &v.Position.IsCalled,
	}, func() error {
		n := some.which[ord-1]
		if !isQuoted(name, b.names[n]) {
			return nil
		}
		v.Definition.Type = host.OID(typ)
		switch {
		case !readable:
			b.values[n] = Value{Definition: v.Definition, Problem: NoRight}
		case isNull:
			return nil
		default:
			b.values[n] = v
		}
		r.client.known.put(b.names[n], some.oids[ord-1], &b.values[n])
		return nil
	})
	return err
}

// isQuoted tells whether text is a name as the server quotes it where that is needed.
func isQuoted(text string, n host.SequenceName) bool {
	rest, ok := cutIdentifier(text, n.Schema)
	if !ok || rest == "" || rest[0] != '.' {
		return false
	}
	rest, ok = cutIdentifier(rest[1:], n.Name)
	return ok && rest == ""
}

func cutIdentifier(text, name string) (rest string, ok bool) {
	if strings.HasPrefix(text, `"`) {
		return strings.CutPrefix(text, remote.QuoteIdentifier(name))
	}
	return strings.CutPrefix(text, name)
}
