package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/replsync/replsync/regress/cluster"
)

// A streamConfig says what a stream reads, and how.
type streamConfig struct {
	slot, database, plugin string
	twoPhase, streaming    bool
	// position tells that the consumer stores its position and asks to go on there, so that it gets nothing twice.
	position bool
	// lazy tells that it confirms now and then only.
	lazy bool
	// seldom tells that it reads only at the end of some rounds.
	seldom bool
}

// A stream is a consumer of a slot, which goes on at whatever server it is pointed at, and judges what it receives.
type stream struct {
	streamConfig
	// since is when its slot was made: what began before may be missing.
	since time.Time

	consumer *cluster.Consumer
	// owed is what it has not read when it was compared with the other ones.
	owed map[string]bool

	mu         sync.Mutex
	want       *cluster.Server // nil: none
	at         *cluster.Server
	closed     bool
	lastErr    error
	connection int
	start      cluster.LSN // what the slot had confirmed when the connection began
	lastEnd    cluster.LSN // in this connection
	pending    map[string]delivery
	seen       map[string]seenAt
	order      []delivery // first deliveries since the last check
	count      counts
	problems   []string
}

// A delivery is a transaction as it was received.
type delivery struct {
	id     string
	writer string
	seq    int
	number int64 // of those that took one
	torn   string
}

type seenAt struct {
	connection int
	end        cluster.LSN
}

// counts says what was wrong.
type counts struct {
	received, resent, lost, duplicated, disordered, phantom, torn int
}

func (c *counts) add(o counts) {
	c.received += o.received
	c.resent += o.resent
	c.lost += o.lost
	c.duplicated += o.duplicated
	c.disordered += o.disordered
	c.phantom += o.phantom
	c.torn += o.torn
}

func newStream(t cluster.T, config streamConfig, since time.Time) *stream {
	s := &stream{streamConfig: config, since: since}
	s.consumer = cluster.NewConsumer(t, cluster.ConsumerConfig{
		Slot: s.slot, Database: s.database, Plugin: s.plugin, Publication: "everything",
		TwoPhase: s.twoPhase, Streaming: s.streaming, FromSlot: !s.position, Manual: s.lazy,
	})
	s.pending, s.seen = map[string]delivery{}, map[string]seenAt{}
	t.Cleanup(s.close)
	go s.run()
	return s
}

// point has the stream go on at a server.
func (s *stream) point(server *cluster.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want, s.lastErr = server, nil
}

// begin forgets what was not complete, for a slot that was made again.
func (s *stream) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = slices.DeleteFunc(s.order, func(d delivery) bool { return s.owed[d.id] })
	s.pending = map[string]delivery{}
	s.since, s.owed = time.Now(), nil
}

// detach ends the connection, and returns when all it brought is judged.
func (s *stream) detach() {
	s.point(nil)
	for {
		s.mu.Lock()
		idle := s.at == nil
		s.mu.Unlock()
		if idle {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *stream) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
}

func (s *stream) run() {
	const lazyInterval = 1500 * time.Millisecond
	nextConfirm := time.Now()
	for {
		s.mu.Lock()
		want, at, closed := s.want, s.at, s.closed
		s.mu.Unlock()
		up, err := s.consumer.Streaming()
		if at != nil && (want != at || !up || closed) {
			s.consumer.Stop()
			s.collect()
			s.mu.Lock()
			s.at = nil
			if err != nil {
				s.lastErr = err
			}
			s.mu.Unlock()
			at = nil
		}
		if closed {
			return
		}
		pause := 10 * time.Millisecond
		if at == nil && want != nil {
			if err := s.connect(want); err != nil {
				s.mu.Lock()
				s.lastErr = err
				s.mu.Unlock()
				pause = 50 * time.Millisecond
			}
		}
		s.collect()
		if s.lazy && time.Now().After(nextConfirm) {
			s.consumer.Confirm(s.consumer.Position())
			nextConfirm = time.Now().Add(lazyInterval)
		}
		time.Sleep(pause)
	}
}

func (s *stream) connect(server *cluster.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	rows, err := server.TryRows(ctx, "select confirmed_flush_lsn::text as lsn from pg_replication_slots where slot_name = $1", s.slot)
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return fmt.Errorf("there is no slot %s on %s", s.slot, server.Name)
	}
	text, _ := rows[0]["lsn"].(string)
	start, err := cluster.ParseLSN(text)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.connection++
	s.start, s.lastEnd = start, 0
	// Set before anything can arrive, so that detach waits for it.
	s.at = server
	s.mu.Unlock()
	err = s.consumer.TryStart(server)
	if err != nil {
		s.mu.Lock()
		s.at = nil
		s.mu.Unlock()
	}
	return err
}

func (s *stream) collect() {
	taken := s.consumer.Take()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tx := range taken {
		s.take(tx)
	}
}

func (s *stream) problem(count *int, format string, args ...any) {
	*count++
	s.problems = append(s.problems, s.slot+": "+fmt.Sprintf(format, args...))
}

// take judges a transaction that was received.
func (s *stream) take(tx cluster.Tx) {
	switch tx.Kind {
	case "prepare":
		if d := read(tx); d != nil {
			s.pending[tx.GID] = *d
		}
	case "rollback prepared":
		delete(s.pending, tx.GID)
	case "commit prepared":
		d, prepared := s.pending[tx.GID]
		delete(s.pending, tx.GID)
		if !prepared {
			// That of one which was complete before may come again alone.
			d = delivery{id: tx.GID}
			if _, seen := s.seen[tx.GID]; !seen {
				s.problem(&s.count.torn, "the commit of %s came without what was prepared", tx.GID)
				return
			}
		}
		s.deliver(d, tx)
	case "commit":
		if d := read(tx); d != nil {
			s.deliver(*d, tx)
		}
	}
}

func (s *stream) deliver(d delivery, tx cluster.Tx) {
	if tx.End <= s.lastEnd {
		s.problem(&s.count.disordered, "%s ends at %v, the one before it at %v", d.id, tx.End, s.lastEnd)
	}
	s.lastEnd = tx.End
	before, again := s.seen[d.id]
	s.seen[d.id] = seenAt{s.connection, tx.End}
	switch {
	case !again:
		s.count.received++
		s.order = append(s.order, d)
		if d.torn != "" {
			s.problem(&s.count.torn, "%s: %s", d.id, d.torn)
		}
	case before.connection == s.connection:
		s.problem(&s.count.duplicated, "%s came twice in one connection", d.id)
	case s.position:
		s.problem(&s.count.duplicated, "%s, which ends at %v, came again to a consumer that asked for what comes after it", d.id, tx.End)
	case tx.End <= s.start:
		s.problem(&s.count.duplicated, "%s, which ends at %v, came again from a slot that was at %v", d.id, tx.End, s.start)
	default:
		s.count.resent++
	}
}

// read finds out which of the workload's transactions this is, and whether it is whole; nil: none of them.
func read(tx cluster.Tx) *delivery {
	var d delivery
	total, parts := 0, map[string]bool{}
	for _, c := range tx.Changes {
		if c.Kind != "insert" {
			continue
		}
		switch {
		case c.Relation == "public.ledger":
			d.id, d.writer = c.Row["tx"], c.Row["writer"]
			d.seq, _ = strconv.Atoi(c.Row["seq"])
			total, _ = strconv.Atoi(c.Row["total"])
			d.number, _ = strconv.ParseInt(c.Row["n"], 10, 64)
		case c.Relation == "public.events", strings.HasPrefix(c.Relation, "public.d_"):
			if c.Row["chk"] != c.Row["tx"]+"/"+c.Row["part"] {
				d.torn = "a row was read as " + c.String()
			}
			parts[c.Row["chk"]] = true
		}
	}
	switch {
	case d.id == "" && len(parts) == 0:
		return nil
	case d.id == "":
		d.id = fmt.Sprintf("transaction %d", tx.XID)
		d.torn = fmt.Sprintf("%d rows, but not that of ledger", len(parts))
	case len(parts) != total:
		d.torn = fmt.Sprintf("%d of %d rows", len(parts), total)
	}
	for chk := range parts {
		if !strings.HasPrefix(chk, d.id+"/") && d.torn == "" {
			d.torn = "it has a row of " + chk
		}
	}
	return &d
}

// has tells whether a transaction was received.
func (s *stream) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.seen[id]
	return ok
}

// settle begins a new account and returns the old one.
func (s *stream) settle() (order []delivery, c counts, problems []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	order, c, problems = s.order, s.count, s.problems
	s.order, s.count, s.problems = nil, counts{}, nil
	for gid := range s.pending {
		c.phantom++
		problems = append(problems, s.slot+": what was prepared as "+gid+" never ended")
		delete(s.pending, gid)
	}
	return order, c, problems
}

// delivered returns what was received since the last check.
func (s *stream) delivered() []delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]delivery(nil), s.order...)
}

func (s *stream) describe() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastErr != nil {
		return fmt.Sprintf("%s: %v", s.slot, s.lastErr)
	}
	return s.slot + ": no error"
}
