package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/replsync/replsync/regress/cluster"
)

const (
	firstConflict   = 16 // replay invalidates slots whose rows it removes
	firstCatChange  = 16 // snapshots name the running transactions that changed catalogs
	firstAbortCheck = 18 // decoding looks whether a large transaction was aborted
	firstFailover   = 17 // slots have the flags failover and synced
	firstParallel   = 16 // subscriptions apply in parallel
)

// A node is a server that is primary or standby.
type node struct {
	*cluster.Server
	scope *scope
}

// A pair is a primary and its standby, which exchange their roles.
type pair struct {
	*scope
	primary, standby *node
	link             *cluster.Proxy // through which the standby reaches the primary
	holdBack         string         // the parameter that keeps consumers behind the standby, if there is one
}

func newPair(top *scope) *pair {
	p := &pair{scope: top}
	sc := top.inner()
	p.primary = &node{cluster.New(sc, *major, cluster.Name("node"), cluster.Preload("replsync"), cluster.Settings(map[string]string{
		"max_prepared_transactions": "50",
		"max_replication_slots":     "30",
		"max_wal_senders":           "30",
		// Transactions of some hundred rows are spilled or streamed.
		"logical_decoding_work_mem": "64kB",
		// For pg_rewind: changes to hint bits in WAL, and WAL since the last common checkpoint.
		"wal_log_hints":             "on",
		"wal_keep_size":             "1GB",
		"replsync.slot_naptime_max": "1s",
	})), sc}
	p.primary.Exec(p, "create extension replsync")
	p.primary.Slot = strings.ReplaceAll(p.primary.Name, "-", "_")
	p.holdBack = cluster.QueryOne[string](p, p.primary, `select coalesce(max(name), '') from pg_settings
		where name in ('synchronized_standby_slots', 'replsync.synchronized_standby_slots')
		and (name ~ '^sync' or current_setting('server_version_num')::int < 170000)`)
	return p
}

func (p *pair) holdBackName() string {
	if p.holdBack == "" {
		return "missing: consumers are stopped before each fault"
	}
	return "by " + p.holdBack
}

// connect makes a new link from the standby to be to the primary, and returns how to reach it.
func (p *pair) connect(sc *scope) string {
	p.link = p.primary.Proxy(sc)
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable", p.link.Port)
}

// rebuild makes a standby: what is left of the former primary is used by pg_rewind, or as it is after a switchover. With
// restartpoint one comes before the copies are made, so that what decoding left here is gone.
func (p *pair) rebuild(method string, restartpoint bool) {
	sync := "on"
	if restartpoint {
		sync = "off"
	}
	// pg_rewind looks for the timeline in the control file.
	p.primary.Exec(p, "checkpoint")
	if method == "pg_basebackup" {
		if p.standby != nil {
			p.standby.scope.end()
		}
		p.primary.Exec(p, "alter system set replsync.sync_slots = "+sync)
		sc := p.inner()
		p.standby = &node{p.primary.Standby(sc, cluster.Name("node"), cluster.PrimaryConninfo(p.connect(sc))), sc}
	} else {
		p.comeBack(method == "pg_rewind", sync)
	}
	p.primary.WaitReplayed(p, p.standby.Server)
	if restartpoint {
		p.primary.Exec(p, "checkpoint")
		p.primary.WaitReplayed(p, p.standby.Server)
		p.standby.Exec(p, "checkpoint")
		p.standby.Set(p, "replsync.sync_slots", "on")
	}
	p.primary.WaitFeedback(p, p.standby.Server)
	// A physical slot that it had as primary would hold rows and WAL for a standby that is none any more.
	p.standby.Exec(p, "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_type = 'physical'")
	if p.holdBack != "" {
		p.primary.Set(p, p.holdBack, p.standby.Slot)
	}
	// What was sent before this was set is here now.
	p.primary.WaitReplayed(p, p.standby.Server)
}

// comeBack makes a stopped former primary a standby of the new one.
func (p *pair) comeBack(rewind bool, sync string) {
	old := p.standby
	p.primary.Exec(p, `select pg_create_physical_replication_slot($1::name, true)
		where not exists (select from pg_replication_slots where slot_name = $1::name)`, old.Slot)
	if rewind {
		source := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", p.primary.Port)
		old.Run(p, "pg_rewind", "--no-sync", "-D", old.DataDir(), "--source-server="+source)
	}
	old.WriteFile(p, "postgresql.auto.conf", fmt.Sprintf("primary_conninfo = '%s'\nprimary_slot_name = '%s'\nreplsync.sync_slots = %s\n",
		p.connect(old.scope), old.Slot, sync))
	old.WriteFile(p, "standby.signal", "")
	old.Start(p)
}

// promote has the standby take over, and returns how long that took.
func (p *pair) promote() time.Duration {
	took := p.standby.Promote(p)
	p.primary, p.standby = p.standby, p.primary
	return took
}

var reCheckpoint = regexp.MustCompile(`Latest checkpoint location:\s+(\S+)`)

// waitShutdown waits until the standby has all that a primary wrote which was shut down.
func (p *pair) waitShutdown() {
	out := p.primary.Run(p, "pg_controldata", p.primary.DataDir())
	m := reCheckpoint.FindStringSubmatch(out)
	if m == nil {
		p.Fatalf("pg_controldata says:\n%s", out)
	}
	last, err := cluster.ParseLSN(m[1])
	if err != nil {
		p.Fatalf("%v", err)
	}
	cluster.Eventually(p, cluster.DefaultDeadline, "the standby to receive the shutdown", func() error {
		got, err := cluster.TryQueryOne[cluster.LSN](p.standby, "select coalesce(pg_last_wal_receive_lsn(), '0/0')")
		if err == nil && got <= last {
			err = fmt.Errorf("it has %v, the last record is at %v", got, last)
		}
		return err
	})
}

// waitReceived waits until the standby has what the primary has written by now.
func (p *pair) waitReceived() {
	target := cluster.QueryOne[cluster.LSN](p, p.primary, "select pg_current_wal_flush_lsn()")
	cluster.Eventually(p, cluster.DefaultDeadline, "the standby to receive WAL", func() error {
		got, err := cluster.TryQueryOne[cluster.LSN](p.standby, "select coalesce(pg_last_wal_receive_lsn(), '0/0')")
		if err == nil && got < target {
			err = fmt.Errorf("it has %v, wanted %v", got, target)
		}
		return err
	})
}

// A status is a row of slot_status.
type status struct{ state, reason string }

// statuses returns what the standby says of its copies.
func (p *pair) statuses(server *cluster.Server) (map[string]status, error) {
	rows, err := cluster.TryQuery[[]string](server, "select array[slot_name::text, state, coalesce(reason, '')] from replsync.slot_status")
	if err != nil {
		return nil, err
	}
	all := map[string]status{}
	for _, row := range rows {
		all[row[0]] = status{row[1], row[2]}
	}
	return all, nil
}

// waitReady waits until replsync says that a promotion loses nothing.
func (p *pair) waitReady(names []string) {
	checked, err := cluster.TryQueryOne[bool](p.standby, "select to_regprocedure('replsync.failover_ready()') is not null")
	checked = checked && err == nil
	cluster.Eventually(p, cluster.DefaultDeadline, "all slots to be ready on "+p.standby.Name, func() error {
		all, err := p.statuses(p.standby.Server)
		if err != nil {
			return err
		}
		for _, name := range names {
			if all[name].state != "ready" {
				return fmt.Errorf("slot %s is %v", name, all[name])
			}
		}
		if !checked {
			return nil
		}
		ok, err := cluster.TryQueryOne[*bool](p.standby, "select replsync.failover_ready()")
		if err == nil && (ok == nil || !*ok) {
			rows, _ := cluster.TryQuery[string](p.standby, "select concat_ws(' ', check_name, object, detail) from replsync.failover_check() where not ok")
			err = fmt.Errorf("failover_ready() is not true: %q", rows)
		}
		return err
	})
}
