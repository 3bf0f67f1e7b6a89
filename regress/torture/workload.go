package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/regress/cluster"
)

const writersOfEach = 4

var databases = []string{"app1", "app2"}

// A workload writes to the primary until it is stopped, and goes on at another one.
type workload struct {
	writers []*writer

	mu    sync.Mutex
	began map[string]time.Time // of transactions since the last check
	acked map[string]bool      // those whose commit was acknowledged
	kinds map[string]int       // how many of each kind were
	odd   map[string]int       // errors of the server that are none of the known ones

	cancel   context.CancelFunc
	stopping chan struct{}
	running  sync.WaitGroup
}

// A writer runs one transaction after the other, so that their order is known.
type writer struct {
	load     *workload
	database string
	name     string
	seq      int
}

func newWorkload() *workload {
	l := &workload{kinds: map[string]int{}, odd: map[string]int{}}
	l.forget()
	for _, db := range databases {
		for i := range writersOfEach {
			l.writers = append(l.writers, &writer{load: l, database: db, name: fmt.Sprintf("w%d", i+1)})
		}
	}
	return l
}

// forget begins a new account.
func (l *workload) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began, l.acked = map[string]time.Time{}, map[string]bool{}
}

// start begins to write to the primary. What is done to the standby is part of it.
func (l *workload) start(round int, primary, standby *cluster.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel, l.stopping = cancel, make(chan struct{})
	for i, w := range l.writers {
		rng := rand.New(rand.NewPCG(*seed, uint64(round)<<20|uint64(i+1)<<1))
		l.goRun(func() { w.run(ctx, l.stopping, rng, round, primary) })
	}
	rng := rand.New(rand.NewPCG(*seed, uint64(round)<<20|1<<15))
	l.goRun(func() { l.maintain(ctx, l.stopping, rng, primary, standby) })
}

func (l *workload) goRun(f func()) {
	l.running.Add(1)
	go func() {
		defer l.running.Done()
		f()
	}()
}

// halt ends the connections of the writers.
func (l *workload) halt() {
	if l.cancel != nil {
		l.cancel()
		l.running.Wait()
		l.cancel = nil
	}
}

// quiesce lets the writers end what they have begun.
func (l *workload) quiesce() {
	if l.cancel == nil {
		return
	}
	close(l.stopping)
	l.running.Wait()
	l.cancel()
	l.cancel = nil
}

func (l *workload) begin(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began[id] = time.Now()
}

func (l *workload) acknowledge(x *transaction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[x.id] = true
	l.kinds[x.kind]++
	if x.end == commitPrepared {
		l.kinds["two-phase"]++
	}
}

// acknowledged returns the transactions whose commit was acknowledged, and beganAt when a transaction began.
func (l *workload) acknowledged() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.acked))
}

func (l *workload) beganAt(id string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.began[id]
}

func (l *workload) kindCounts() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(l.kinds)) {
		parts = append(parts, fmt.Sprintf("%d %s", l.kinds[kind], kind))
	}
	for _, text := range slices.Sorted(maps.Keys(l.odd)) {
		parts = append(parts, fmt.Sprintf("%d times %s", l.odd[text], text))
	}
	return strings.Join(parts, ", ")
}

// rest waits, and returns at once when the workload is to end.
func rest(ctx context.Context, stopping <-chan struct{}, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-stopping:
	case <-time.After(d):
	}
}

func ended(ctx context.Context, stopping <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return true
	case <-stopping:
		return true
	default:
		return false
	}
}

const sessionSettings = "set lock_timeout = '8s'; set statement_timeout = '20s'"

func (w *writer) run(ctx context.Context, stopping <-chan struct{}, rng *rand.Rand, round int, primary *cluster.Server) {
	for !ended(ctx, stopping) {
		conn, err := primary.DB(w.database).TryConnect(ctx)
		if err != nil {
			rest(ctx, stopping, 50*time.Millisecond)
			continue
		}
		if _, err := conn.Exec(ctx, sessionSettings); err == nil && w.resolve(ctx, conn) == nil {
			w.session(ctx, stopping, rng, round, conn)
		}
		conn.Close(ctx)
	}
}

// resolve ends prepared transactions that a lost connection or a failover left behind.
func (w *writer) resolve(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, "select gid from pg_prepared_xacts where database = current_database() and gid like $1", "%."+w.name+".%")
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, gid := range gids {
		if _, err := conn.Exec(ctx, "commit prepared "+cluster.QuoteLiteral(gid)); err != nil {
			return err
		}
	}
	return err
}

func (w *writer) session(ctx context.Context, stopping <-chan struct{}, rng *rand.Rand, round int, conn *pgx.Conn) {
	for !ended(ctx, stopping) {
		w.seq++
		x := newTransaction(rng, fmt.Sprintf("r%d.%s.%s.%d", round, w.database, w.name, w.seq), w.name)
		w.load.begin(x.id)
		err := w.write(ctx, stopping, x, conn)
		if err != nil && !conn.IsClosed() {
			w.load.noteError(round, x, err)
			if _, err = conn.Exec(ctx, "rollback"); err == nil {
				err = w.resolve(ctx, conn)
			}
		}
		if err != nil {
			return
		}
		rest(ctx, stopping, between(rng, time.Millisecond, 25*time.Millisecond))
	}
}

func (l *workload) noteError(round int, x *transaction, err error) {
	pgErr, ok := cluster.AsPgError(err)
	if !ok {
		return
	}
	switch pgErr.Code[:2] {
	case "57", "40", "55": // shutdown, deadlock, lock timeout
		return
	}
	say("%s of round %d, %s: %v", x.id, round, x.kind, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.odd[x.id+", "+x.kind+": "+pgErr.Message]++
}

func (w *writer) write(ctx context.Context, stopping <-chan struct{}, x *transaction, conn *pgx.Conn) error {
	exec := func(sql string) error {
		_, err := conn.Exec(ctx, sql)
		return err
	}
	if err := exec("begin"); err != nil {
		return err
	}
	for _, s := range x.steps {
		if err := exec(s.sql); err != nil {
			return err
		}
		if s.rest > 0 {
			rest(ctx, stopping, s.rest)
		}
	}
	if err := exec(x.last(w.name, w.seq)); err != nil {
		return err
	}
	switch x.end {
	case rollback:
		return exec("rollback")
	case commitPrepared, rollbackPrepared:
		if err := exec("prepare transaction '" + x.id + "'"); err != nil {
			return err
		}
		rest(ctx, stopping, x.atEnd)
		if x.end == rollbackPrepared {
			return exec("rollback prepared '" + x.id + "'")
		}
		if err := exec("commit prepared '" + x.id + "'"); err != nil {
			return err
		}
	default:
		if err := exec("commit"); err != nil {
			return err
		}
	}
	w.load.acknowledge(x)
	return nil
}

// maintain does what puts decoding to the test: it rewrites catalogs, has running transactions logged, and takes
// checkpoints and restartpoints.
func (l *workload) maintain(ctx context.Context, stopping <-chan struct{}, rng *rand.Rand, primary, standby *cluster.Server) {
	catalogs := []string{"pg_class", "pg_attribute", "pg_type", "pg_attrdef", "pg_index"}
	for !ended(ctx, stopping) {
		rest(ctx, stopping, between(rng, 50*time.Millisecond, 350*time.Millisecond))
		server, sql := primary, "checkpoint"
		switch pick := rng.IntN(10); {
		case pick < 3:
			sql = fmt.Sprintf("set lock_timeout = '300ms'; select pg_advisory_lock(%d); vacuum full %s", takenBack, catalogs[rng.IntN(len(catalogs))])
		case pick < 4:
			sql = "set lock_timeout = '300ms'; vacuum pg_class; vacuum pg_attribute; vacuum pg_type"
		case pick < 7 && *major >= 16:
			sql = "select pg_log_standby_snapshot()"
		case pick < 8 && standby != nil:
			server = standby
		}
		// vacuum runs in no transaction, so each statement goes alone.
		db := server.DB(databases[rng.IntN(len(databases))])
		conn, err := db.TryConnect(ctx)
		if err != nil {
			continue
		}
		for statement := range strings.SplitSeq(sql, "; ") {
			if _, err := conn.Exec(ctx, statement); err != nil {
				break
			}
		}
		conn.Close(ctx)
	}
}
