package main

import (
	"context"
	"time"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/bench/report"
	"github.com/replsync/replsync/regress/cluster"
)

// measureBackend compares sessions of a server with the library and the extension to those of one without. A second
// server without shows how much two equal ones differ.
func measureBackend(b *harness.B) {
	const sessions = 100
	versions := b.Versions()
	for _, major := range []int{versions[0], versions[len(versions)-1]} {
		b.Progress("PostgreSQL %d", major)
		with := newPrimary(b, major, 10, nil)
		without := func() *cluster.Server { return cluster.New(b, major, cluster.Fsync(), settings(10, nil)) }
		servers := []*cluster.Server{with, without(), without()}
		connect := make([]report.Series, len(servers))
		memory := make([]report.Series, len(servers))
		for range b.Rounds {
			once := make([]report.Series, len(servers))
			for i := range sessions {
				var functions []func()
				for k, s := range servers {
					functions = append(functions, func() {
						took, own := session(b, s, i%10 == 0)
						once[k].AddDuration(took)
						if own > 0 {
							memory[k].Add(own)
						}
					})
				}
				harness.Alternate(i, functions...)
			}
			for k := range servers {
				connect[k].Add(once[k].Median())
			}
		}
		// How much two servers differ that are equal.
		noise := report.Row{Theirs: connect[1], Replsync: connect[2]}.Ratio()
		for _, row := range []report.Row{
			{Work: "a client's connect and first query", Unit: "ms", Replsync: connect[0], Theirs: connect[1]},
			{Work: "its backend's memory (PSS, without files and shared memory)", Unit: "MiB", Replsync: memory[0], Theirs: memory[1]},
		} {
			row.Version, row.Peer, row.Targets = major, "not loaded", []report.Target{report.RatioAtMost(max(1.05, noise, 1/noise))}
			b.Add(row)
		}
		b.Note("PostgreSQL %d: of two servers without the library, one needs %s of the other's time for a connect",
			major, report.Number(noise))
		for _, s := range servers {
			s.Stop(b, cluster.Immediate)
		}
		if len(versions) == 1 {
			return
		}
	}
}

// session connects, makes a query, and returns the time for that and the memory of the backend.
func session(b *harness.B, s *cluster.Server, look bool) (time.Duration, float64) {
	ctx := context.Background()
	began := time.Now()
	conn, err := s.TryConnect(ctx)
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer conn.Close(ctx)
	var pid int
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		b.Fatalf("%s: %v", s.Name, err)
	}
	took := time.Since(began)
	if !look {
		return took, 0
	}
	return took, b.Memory(pid).Anon
}
