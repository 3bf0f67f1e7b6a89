package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/replsync/replsync/regress/cluster"
)

// A result is what a round, or all of them, came to.
type result struct {
	story                  string
	committed, tail, moved int // acknowledged; of those, not on the promoted standby; slots that were used after a promotion
	unready, unreadyUsed   int // copies that were not ready at a promotion, and of those that could be used
	counts
}

func (r *result) add(o result) {
	r.committed += o.committed
	r.tail += o.tail
	r.moved += o.moved
	r.unready += o.unready
	r.unreadyUsed += o.unreadyUsed
	r.counts.add(o.counts)
}

func (r result) bad() bool {
	return r.lost+r.duplicated+r.disordered+r.phantom+r.torn+r.unreadyUsed > 0
}

func (r result) String() string {
	return fmt.Sprintf("committed %d (tail %d), slots %d (not ready %d, of these used %d), received %d, sent again %d, lost %d, duplicated %d, out of order %d, phantom %d, torn %d",
		r.committed, r.tail, r.moved, r.unready, r.unreadyUsed, r.received, r.resent, r.lost, r.duplicated, r.disordered, r.phantom, r.torn)
}

// markerWriter writes what comes last in a round.
const markerWriter = "marker"

// survivors reads which transactions a server has.
func (r *run) survivors(server *cluster.Server) map[string]bool {
	all := map[string]bool{}
	for _, db := range databases {
		for _, id := range cluster.Query[string](r, server.DB(db), "select tx from ledger") {
			all[id] = true
		}
	}
	return all
}

// checkPhantoms looks for what consumers have received that the promoted standby does not have.
func (r *run) checkPhantoms(res *result, survived map[string]bool) {
	for _, s := range r.streams {
		for _, d := range s.delivered() {
			if !survived[d.id] && !s.owed[d.id] {
				res.phantom++
				r.problem("%s: %s was received and is not on the new primary", s.slot, d.id)
			}
		}
	}
	for _, id := range r.load.acknowledged() {
		if !survived[id] {
			res.tail++
		}
	}
}

// verify waits until everything has arrived everywhere, and compares. Nobody writes meanwhile. Consumers that read seldom
// owe it unless they are asked.
func (r *run) verify(res *result, streams []*stream, askSeldom bool) {
	primary := r.pair.primary.Server
	marker := fmt.Sprintf("%s.%d", markerWriter, r.n)
	want := map[string]map[string]bool{}
	for _, db := range databases {
		ids := map[string]bool{}
		for _, id := range cluster.Query[string](r, primary.DB(db), "select tx from ledger") {
			ids[id] = true
		}
		want[db] = ids
		primary.DB(db).Exec(r, "insert into ledger values ($1, $2, $3, 0, null)", marker, markerWriter, r.n)
	}
	var asked []*stream
	for _, s := range streams {
		if s.seldom && !askSeldom {
			s.owe(want[s.database], marker)
			continue
		}
		s.point(primary)
		asked = append(asked, s)
	}
	for _, s := range asked {
		r.waitFor(s, marker)
	}
	cluster.Eventually(r, cluster.DefaultDeadline, "the subscription to apply "+marker, func() error { return r.sub.has(marker) })

	orders := map[string]map[string]int{}
	for _, s := range asked {
		order, c, problems := s.settle()
		r.problems = append(r.problems, problems...)
		all := maps.Clone(want[s.database])
		maps.Copy(all, s.owed)
		s.owed = nil
		r.compare(s, order, all, marker, orders, &c)
		res.counts.add(c)
		s.since = time.Time{}
	}
	c, problems := r.sub.compare(primary)
	r.problems = append(r.problems, problems...)
	res.counts.add(c)
}

// owe adds to what the stream has to read when it is asked next.
func (s *stream) owe(ids map[string]bool, marker string) {
	if s.owed == nil {
		s.owed = map[string]bool{}
	}
	maps.Copy(s.owed, ids)
	s.owed[marker] = true
}

func (r *run) waitFor(s *stream, marker string) {
	end := time.Now().Add(cluster.DefaultDeadline)
	for !s.has(marker) {
		if time.Now().After(end) {
			r.explain()
			slot := r.pair.primary.Slots(r)[s.slot]
			r.Fatalf("slot %s is stuck: %s; %+v; log of %s:\n%s", s.slot, s.describe(), slot, r.pair.primary.Name,
				lastLines(r.pair.primary.Log(), "ERROR|FATAL|PANIC", 10))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// compare finds what a consumer lacks, what it has too much, and what came in the wrong order. The first consumer of a
// database sets the order for the other ones.
func (r *run) compare(s *stream, order []delivery, want map[string]bool, marker string, orders map[string]map[string]int, c *counts) {
	got := map[string]bool{}
	for _, d := range order {
		got[d.id] = true
		if !want[d.id] && d.id != marker {
			c.phantom++
			r.problem("%s: %s was received and was never committed", s.slot, d.id)
		}
	}
	for id := range want {
		if !got[id] && !r.load.beganAt(id).Before(s.since) {
			c.lost++
			r.problem("%s: %s is lost", s.slot, id)
		}
	}
	seq, number, last := map[string]int{}, int64(0), -1
	first := orders[s.database] == nil && s.since.IsZero() && !s.seldom
	if first {
		orders[s.database] = map[string]int{}
	}
	for i, d := range order {
		if first {
			orders[s.database][d.id] = i
		}
		place, known := orders[s.database][d.id]
		if d.seq <= seq[d.writer] && d.writer != markerWriter || d.number != 0 && d.number <= number || known && place <= last {
			c.disordered++
			r.problem("%s: %s came too late: after number %d, %d of its writer, place %d", s.slot, d.id, number, seq[d.writer], last)
		}
		seq[d.writer] = d.seq
		if known {
			last = place
		}
		if d.number != 0 {
			number = d.number
		}
	}
}

// prune removes what was compared.
func (r *run) prune() {
	for _, db := range databases {
		r.pair.primary.DB(db).Exec(r, "truncate events; delete from ledger")
	}
	r.load.forget()
	r.pair.waitReceived()
}

func (r *run) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// explain shows the first of what was wrong.
func (r *run) explain() {
	const most = 40
	slices.Sort(r.problems)
	for i, p := range r.problems {
		if i == most {
			fmt.Printf("  and %d more\n", len(r.problems)-most)
			break
		}
		fmt.Println("  " + p)
	}
	for _, s := range r.streams {
		fmt.Println("  " + s.describe())
	}
}

// showLogs shows what the servers say of their own troubles.
func (r *run) showLogs() {
	for _, s := range []*cluster.Server{r.pair.primary.Server, r.pair.standby.Server, r.sub.server} {
		fmt.Printf("  log of %s:\n%s\n", s.Name, lastLines(s.Log(), "PANIC|TRAP|FATAL|terminated by|exited with exit code|WARNING|replsync", 15))
	}
}

// lastLines returns the last lines that match.
func lastLines(text, pattern string, most int) string {
	expr := regexp.MustCompile(pattern)
	var lines []string
	for line := range strings.Lines(text) {
		if expr.MatchString(line) {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
