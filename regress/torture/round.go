package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/replsync/replsync/regress/cluster"
)

// A run is what goes on from round to round.
type run struct {
	*scope
	pair     *pair
	sub      *subscription
	load     *workload
	streams  []*stream
	n        int // of the round
	problems []string
	aside    []string // directories
}

func newRun(top *scope) *run {
	r := &run{scope: top, pair: newPair(top), load: newWorkload()}
	primary := r.pair.primary.Server
	for _, db := range databases {
		primary.Exec(r, "create database "+db)
		primary.DB(db).Exec(r, schema+publications)
	}
	r.sub = newSubscription(top, primary)
	for _, config := range []streamConfig{
		{slot: "plain", database: "app1", plugin: "pgoutput"},
		{slot: "position", database: "app1", plugin: "pgoutput", position: true, streaming: true},
		{slot: "text", database: "app1", plugin: "test_decoding"},
		{slot: "streamed", database: "app2", plugin: "pgoutput", streaming: true},
		{slot: "prepared", database: "app2", plugin: "pgoutput", twoPhase: true, streaming: true},
		{slot: "text_prepared", database: "app2", plugin: "test_decoding", twoPhase: true, position: true},
		{slot: "lazy", database: "app2", plugin: "test_decoding", lazy: true},
		{slot: "seldom", database: "app1", plugin: "test_decoding", seldom: true},
	} {
		r.createSlot(config)
		r.streams = append(r.streams, newStream(top, config, time.Time{}))
	}
	r.pair.rebuild("pg_basebackup", false)
	for _, s := range r.streams {
		s.point(r.pair.primary.Server)
	}
	return r
}

func (r *run) createSlot(s streamConfig) {
	r.pair.primary.DB(s.database).CreateSlot(r, s.slot, cluster.SlotOptions{
		Plugin: s.plugin, TwoPhase: s.twoPhase, Failover: *major >= firstFailover,
	})
}

// point has the consumers go on at the primary, but for those that read at the end.
func (r *run) point(streams []*stream) {
	for _, s := range streams {
		if !s.seldom {
			s.point(r.pair.primary.Server)
		}
	}
}

func (r *run) detach() {
	for _, s := range r.streams {
		s.point(nil)
	}
	for _, s := range r.streams {
		s.detach()
	}
}

func (r *run) slotNames() []string {
	names := []string{"subscription"}
	for _, s := range r.streams {
		names = append(names, s.slot)
	}
	return names
}

const latePrefix = "late_"

// round is one failover.
func (r *run) round(n int) result {
	r.n, r.problems = n, nil
	start := time.Now()
	d := decide(n)
	var res result
	say("round %d: %v", n, d)
	r.load.start(n, r.pair.primary.Server, r.pair.standby.Server)
	r.pair.waitReady(r.slotNames())
	for _, s := range r.streams {
		if s.seldom {
			s.detach()
		}
	}
	if *without {
		d.before, d.lapse, d.late = "", false, false
	}
	if d.before != "" {
		r.disturb(d.before)
		r.pair.waitReady(r.slotNames())
	}
	time.Sleep(d.wait)
	late := r.makeLate(d)
	if d.lapse {
		r.lapse(d.lapseEnds)
	}
	r.quietWithoutHoldBack()

	if *without {
		r.load.quiesce()
		r.verify(&res, r.streams, n%3 == 0)
		r.prune()
		res.story = fmt.Sprintf("without failover, all in %v", time.Since(start).Round(100*time.Millisecond))
		return res
	}
	say("the primary is %s", d.fault)
	r.fault(d)
	ready := r.readyNow()
	took := r.pair.promote()
	r.afterPromotion(d)
	if d.lapse {
		r.pair.primary.Exec(r, "alter system reset hot_standby_feedback")
	}

	r.load.halt()
	r.detach()
	if *keep {
		r.setAside(r.pair.standby)
	}
	survived := r.survivors(r.pair.primary.Server)
	r.checkPhantoms(&res, survived)
	streams, missing := r.takeOver(&res, ready, late, d.lapse)
	r.renew(missing)
	r.load.start(n<<8, r.pair.primary.Server, nil)
	r.point(streams)
	r.pair.rebuild(d.rebuild, d.restartpoint)
	say("rebuilt")
	time.Sleep(d.settle)
	r.load.quiesce()
	res.committed = len(r.load.acknowledged())
	// A base backup begins after what a slot needs that nobody reads: its copy would wait until somebody does.
	r.verify(&res, streams, d.rebuild == "pg_basebackup")
	r.dropLate(streams)
	r.prune()
	res.story = fmt.Sprintf("%v; promoted in %v, all in %v", d, took.Round(time.Millisecond), time.Since(start).Round(100*time.Millisecond))
	return res
}

// setAside keeps what the former primary has before it is rebuilt, for one who looks for the cause of a failure: it is there
// until the round after.
func (r *run) setAside(old *node) {
	dir := old.DataDir()
	for _, earlier := range r.aside {
		if err := os.RemoveAll(earlier); err != nil {
			r.Fatalf("%v", err)
		}
	}
	r.aside = []string{dir + ".aside"}
	if err := os.CopyFS(r.aside[0], os.DirFS(dir)); err != nil {
		r.Fatalf("%v", err)
	}
}

// disturb does something that is no failover.
func (r *run) disturb(what string) {
	say("%s", what)
	p := r.pair
	switch what {
	case "standby killed":
		p.standby.Kill9(r)
		p.standby.Start(r)
	case "standby restarted":
		p.standby.Restart(r)
	case "standby frozen":
		p.standby.Freeze(r)
		time.Sleep(time.Second)
		p.standby.Thaw(r)
	case "worker killed":
		mark := p.standby.LogMark()
		pid := p.standby.WorkerPID(r, "replsync slot worker")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			r.Fatalf("%v", err)
		}
		p.standby.WaitLog(r, mark, "all server processes terminated")
		p.standby.WaitLog(r, mark, "ready to accept read-only connections")
	case "primary killed":
		p.primary.Kill9(r)
		p.primary.Start(r)
	case "primary restarted":
		r.beforeShutdown()
		p.primary.Restart(r)
		r.point(r.streams)
		if *major >= firstAbortCheck {
			r.load.start(r.n<<8|1, p.primary.Server, p.standby.Server)
		}
	}
}

// lapse has the primary forget what it keeps for the standby, and clean up. What copies need may be gone then: they are not
// ready, or as good as before.
func (r *run) lapse(ends bool) {
	p := r.pair
	p.standby.Set(r, "hot_standby_feedback", "off")
	cluster.Eventually(r, cluster.DefaultDeadline, "the primary to forget what it kept", func() bool {
		return p.primary.Slots(r)[p.standby.Slot].CatalogXmin == nil
	})
	for _, catalog := range []string{"pg_class", "pg_attribute", "pg_type"} {
		p.primary.DB(databases[0]).Exec(r, "vacuum "+catalog)
	}
	if ends {
		p.standby.Set(r, "hot_standby_feedback", "on")
	}
}

// beforeShutdown prepares an orderly end of the primary. It would wait for the consumer that confirms late, and it rolls
// transactions back: see decideEnd.
func (r *run) beforeShutdown() {
	for _, s := range r.streams {
		if s.lazy {
			s.detach()
		}
	}
	if *major >= firstAbortCheck {
		r.load.quiesce()
	}
}

// quietWithoutHoldBack stops the consumers where nothing keeps them from being ahead of the standby.
func (r *run) quietWithoutHoldBack() {
	if r.pair.holdBack != "" {
		return
	}
	r.detach()
	r.sub.pause()
	r.pair.waitReceived()
}

// fault ends the primary, or what can be seen of it.
func (r *run) fault(d decisions) {
	p := r.pair
	switch d.fault {
	case "killed":
		p.primary.Kill9(r)
	case "stopped at once":
		p.primary.Stop(r, cluster.Immediate)
	case "frozen":
		p.primary.Freeze(r)
	case "cut off":
		if d.gently {
			p.link.Refuse(true)
			p.link.Cut()
		} else {
			p.link.Freeze()
		}
		time.Sleep(d.linger)
	case "switchover":
		r.beforeShutdown()
		p.primary.Stop(r, cluster.Fast)
		p.waitShutdown()
	}
}

// afterPromotion ends the former primary where it still runs.
func (r *run) afterPromotion(d decisions) {
	old := r.pair.standby
	switch d.fault {
	case "frozen":
		if !d.gently {
			old.Kill9(r)
			return
		}
		r.load.halt()
		// They wait for the frozen server until it goes on.
		for _, s := range r.streams {
			s.point(nil)
		}
		old.Thaw(r)
		r.detach()
		old.Stop(r, cluster.Immediate)
	case "cut off":
		time.Sleep(d.linger)
		r.load.halt()
		r.detach()
		old.Kill9(r)
	}
}
