package main

import (
	"fmt"

	"github.com/replsync/replsync/regress/cluster"
)

// The subscription is the server's own consumer: it applies what it receives, and its tables must equal the publisher's.
type subscription struct {
	*scope
	server *cluster.Server
	mark   cluster.LogMark
}

const subscribed = "app1"

func newSubscription(top *scope, primary *cluster.Server) *subscription {
	s := &subscription{scope: top}
	s.server = cluster.New(top, *major, cluster.Name("subscriber"), cluster.Settings(map[string]string{
		"max_prepared_transactions":         "50",
		"max_logical_replication_workers":   "10",
		"max_sync_workers_per_subscription": "4",
	}))
	s.server.Exec(top, "create database "+subscribed)
	s.db().Exec(top, schema)
	s.create(primary, false)
	return s
}

func (s *subscription) db() *cluster.Database { return s.server.DB(subscribed) }

func (s *subscription) source(primary *cluster.Server) string {
	return cluster.QuoteLiteral(primary.DB(subscribed).ConnString())
}

func (s *subscription) create(primary *cluster.Server, copyData bool) {
	options := fmt.Sprintf("copy_data = %v, streaming = ", copyData)
	if *major >= firstParallel {
		options += "parallel"
	} else {
		options += "on"
	}
	// 17 has not both.
	if *major >= firstFailover {
		options += ", failover = true"
	}
	if *major != firstFailover {
		options += ", two_phase = true"
	}
	s.db().Exec(s, fmt.Sprintf("create subscription subscription connection %s publication replicated with (%s)", s.source(primary), options))
}

// point has the subscription go on at a server.
func (s *subscription) point(primary *cluster.Server) {
	s.db().Exec(s, "alter subscription subscription connection "+s.source(primary))
	s.db().Exec(s, "alter subscription subscription enable")
}

// pause waits until the subscription has stopped.
func (s *subscription) pause() {
	s.db().Exec(s, "alter subscription subscription disable")
	cluster.Eventually(s, cluster.DefaultDeadline, "the subscription to stop", func() bool {
		n, err := cluster.TryQueryOne[int](s.db(), "select count(*) from pg_stat_subscription where pid is not null")
		return err == nil && n == 0
	})
}

// renew begins anew, as when the slot could not be used.
func (s *subscription) renew(primary *cluster.Server) {
	s.pause()
	s.db().Exec(s, "alter subscription subscription set (slot_name = none)")
	s.db().Exec(s, "drop subscription subscription")
	for _, gid := range cluster.Query[string](s, s.db(), "select gid from pg_prepared_xacts where database = current_database()") {
		s.db().Exec(s, "rollback prepared "+cluster.QuoteLiteral(gid))
	}
	s.db().Exec(s, "truncate ledger, events, tally, counter")
	s.create(primary, true)
}

// has tells whether a transaction was applied, and every table takes part.
func (s *subscription) has(id string) error {
	n, err := cluster.TryQueryOne[int](s.db(), `select count(*) from ledger where tx = $1
		and not exists (select from pg_subscription_rel where srsubstate <> 'r')`, id)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s is not there, or a table is being copied; the subscriber's log ends with\n%s", id, lastLines(s.server.LogSince(s.mark), "ERROR|FATAL", 5))
	}
	return err
}

// compare counts what the subscriber lacks, and what it has that the primary has not.
func (s *subscription) compare(primary *cluster.Server) (c counts, problems []string) {
	here, there := s.db(), primary.DB(subscribed)
	ids := func(q cluster.Queryer) map[string]bool {
		set := map[string]bool{}
		for _, id := range cluster.Query[string](s, q, "select tx from ledger") {
			set[id] = true
		}
		return set
	}
	got, want := ids(here), ids(there)
	c.received = len(got)
	for id := range want {
		if !got[id] {
			c.lost++
			problems = append(problems, "subscription: "+id+" is lost")
		}
	}
	for id := range got {
		if !want[id] {
			c.phantom++
			problems = append(problems, "subscription: "+id+" is not on the primary")
		}
	}
	for _, table := range []string{"ledger", "events", "tally", "counter"} {
		sql := fmt.Sprintf("select count(*) || ' rows, ' || coalesce(md5(string_agg(t::text, ',' order by t::text)), 'none') from %s t", table)
		a, b := cluster.QueryOne[string](s, here, sql), cluster.QueryOne[string](s, there, sql)
		if a != b {
			c.torn++
			problems = append(problems, fmt.Sprintf("subscription: %s has %s, on the primary %s", table, a, b))
		}
	}
	s.mark = s.server.LogMark()
	return c, problems
}
