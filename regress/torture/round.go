package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
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

// decisions are what a round will do. All of them follow from the seed and the number of the round.
type decisions struct {
	before       string // a trouble before the failover
	fault        string
	gently       bool          // frozen: thawed once its successor is there; cut off: by closed connections
	wait         time.Duration // until the fault
	linger       time.Duration // how long a primary that was cut off goes on, before and after the promotion
	lapse        bool          // the primary keeps no rows for the standby meanwhile
	lapseEnds    bool          // before the fault
	late         bool          // a slot is made just before the fault
	lateAfter    time.Duration // from when it is there until the fault
	lateSlot     streamConfig
	rebuild      string
	restartpoint bool          // one on the new standby before its copies are made
	settle       time.Duration // after the rebuild
}

func pick[V any](rng *rand.Rand, from ...V) V { return from[rng.IntN(len(from))] }

func decide(n int) decisions {
	rng := rand.New(rand.NewPCG(*seed, uint64(n)))
	d := decisions{
		before: pick(rng, "", "", "standby killed", "standby restarted", "worker killed", "standby frozen",
			"primary killed", "primary restarted"),
		fault:        pick(rng, "killed", "killed", "stopped at once", "frozen", "cut off", "cut off", "switchover"),
		gently:       rng.IntN(2) == 0,
		wait:         between(rng, 100*time.Millisecond, 2500*time.Millisecond),
		linger:       between(rng, 50*time.Millisecond, 700*time.Millisecond),
		late:         rng.IntN(2) == 0,
		lateAfter:    between(rng, time.Millisecond, 700*time.Millisecond),
		rebuild:      []string{"pg_rewind", "pg_basebackup"}[n%2],
		restartpoint: rng.IntN(2) == 0,
		settle:       between(rng, 100*time.Millisecond, time.Second),
	}
	d.lateSlot = streamConfig{slot: fmt.Sprintf("%s%d", latePrefix, n), database: pick(rng, databases...), plugin: pick(rng, "pgoutput", "test_decoding")}
	if d.fault == "switchover" {
		d.rebuild = "nothing"
	}
	d.lapse, d.lapseEnds = rng.IntN(5) == 0, rng.IntN(2) == 0
	return d
}

func (d decisions) String() string {
	var parts []string
	if d.before != "" {
		parts = append(parts, d.before)
	}
	parts = append(parts, fmt.Sprintf("after %v primary %s", d.wait.Round(time.Millisecond), d.fault))
	if d.lapse {
		parts = append(parts, "feedback lapsed")
	}
	if d.late {
		parts = append(parts, fmt.Sprintf("slot made %v before", d.lateAfter.Round(time.Millisecond)))
	}
	parts = append(parts, "rebuilt with "+d.rebuild)
	if d.restartpoint {
		parts = append(parts, "a restartpoint")
	}
	return strings.Join(parts, ", ")
}

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

// readiness is what the standby says just before it is promoted.
type readiness map[string]status

func (r *run) readyNow() readiness {
	var all map[string]status
	cluster.Eventually(r, cluster.DefaultDeadline, "slot_status of the standby", func() (err error) {
		all, err = r.pair.statuses(r.pair.standby.Server)
		return err
	})
	return all
}

// A lateSlot is made just before the fault, if it comes to that.
type lateSlot struct {
	streamConfig
	tried bool
	since time.Time
}

// makeLate makes a slot, which takes until the transactions that are running have ended.
func (r *run) makeLate(d decisions) lateSlot {
	const patience = 5 * time.Second
	l := lateSlot{streamConfig: d.lateSlot, tried: d.late}
	if !d.late {
		return l
	}
	sql := "select pg_create_logical_replication_slot($1, $2)"
	if *major >= firstFailover {
		sql = "select pg_create_logical_replication_slot($1, $2, false, false, true)"
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := r.pair.primary.DB(l.database).TryExec(ctx, sql, l.slot, l.plugin)
	l.since = time.Now()
	if err != nil {
		// Nothing is known of what it would have to bring.
		l.since = l.since.Add(time.Hour)
		say("slot %s: %v", l.slot, err)
	}
	time.Sleep(d.lateAfter)
	return l
}

// subscriptionSlot is what the subscription reads.
var subscriptionSlot = streamConfig{slot: "subscription", database: subscribed, plugin: "pgoutput"}

// takeOver sees to the slots on the new primary: those that were ready are used, and the other ones must not be usable. It
// returns the consumers, with that of the slot that was made late if it has one, and which slots are to be made again.
// lapsed: that slot may have been ready for a while, too.
func (r *run) takeOver(res *result, ready readiness, late lateSlot, lapsed bool) (streams []*stream, missing map[string]bool) {
	r.dropStrays(late.slot)
	streams, missing = append(streams, r.streams...), map[string]bool{}
	configs := []streamConfig{subscriptionSlot}
	for _, s := range r.streams {
		configs = append(configs, s.streamConfig)
	}
	there := r.pair.primary.Slots(r)
	for _, c := range configs {
		if ready[c.slot].state == "ready" && there[c.slot].Plugin != c.plugin {
			// A lapse may be noticed only after the question.
			if !lapsed {
				r.Fatalf("slot %s was ready, and after the promotion it is %+v", c.slot, there[c.slot])
			}
			ready[c.slot] = status{"waiting", "noticed late"}
		}
		if ready[c.slot].state == "ready" || r.usable(res, c, ready[c.slot], true) {
			res.moved++
		} else {
			missing[c.slot] = true
		}
	}
	if !missing[subscriptionSlot.slot] {
		r.sub.point(r.pair.primary.Server)
	}
	if late.tried && (ready[late.slot].state == "ready" || r.usable(res, late.streamConfig, ready[late.slot], lapsed)) {
		res.moved++
		streams = append(streams, newStream(r.scope, late.streamConfig, late.since))
	}
	return streams, missing
}

// dropStrays drops slots of earlier rounds: one that was made just before a switchover and not copied is still there when its
// server becomes primary again.
func (r *run) dropStrays(late string) {
	for name := range r.pair.primary.Slots(r) {
		if strings.HasPrefix(name, latePrefix) && name != late {
			say("slot %s is dropped", name)
			r.pair.primary.Exec(r, "select pg_drop_replication_slot($1)", name)
		}
	}
}

// renew makes slots again. That would wait for prepared transactions.
func (r *run) renew(missing map[string]bool) {
	if len(missing) == 0 {
		return
	}
	for _, name := range databases {
		db := r.pair.primary.DB(name)
		for _, gid := range cluster.Query[string](r, db, "select gid from pg_prepared_xacts where database = current_database()") {
			db.Exec(r, "commit prepared "+cluster.QuoteLiteral(gid))
		}
	}
	for _, s := range r.streams {
		if missing[s.slot] {
			r.createSlot(s.streamConfig)
			s.begin()
		}
	}
	if missing[subscriptionSlot.slot] {
		r.sub.renew(r.pair.primary.Server)
	}
}

// usable tells whether a copy that was not ready can be used, and drops it if not. One that was ready once is usable from
// 16 on unless replay has invalidated it, and then has to be complete; any other one must not be. The log may know of one
// that slot_status shows after the pass only.
func (r *run) usable(res *result, s streamConfig, was status, once bool) bool {
	primary := r.pair.primary.Server
	res.unready++
	say("slot %s was %v", s.slot, was)
	if _, there := primary.Slots(r)[s.slot]; !there {
		return false
	}
	c := cluster.NewConsumer(r, cluster.ConsumerConfig{Slot: s.slot, Database: s.database, Plugin: s.plugin, Publication: "everything",
		TwoPhase: s.twoPhase, FromSlot: true, Manual: true})
	err := c.TryStart(primary)
	if err == nil {
		c.Stop()
		made := strings.Contains(primary.Log(), fmt.Sprintf("created a copy of replication slot %q, which is ready", s.slot))
		if once && *major >= firstConflict || was.state == "" && made {
			return true
		}
		res.unreadyUsed++
		r.problem("slot %s was %v at the promotion and can be used", s.slot, was)
	}
	say("slot %s: %v", s.slot, err)
	// The worker may be about to do so.
	cluster.Eventually(r, cluster.DefaultDeadline, "slot "+s.slot+" to be dropped", func() error {
		_, err := cluster.TryQueryOne[int](primary, "select count(pg_drop_replication_slot(slot_name)) from pg_replication_slots where slot_name = $1", s.slot)
		return err
	})
	return false
}

// dropLate drops the slots that are of this round only.
func (r *run) dropLate(streams []*stream) {
	for _, s := range streams[len(r.streams):] {
		s.detach()
		s.close()
		cluster.Eventually(r, cluster.DefaultDeadline, "slot "+s.slot+" to be dropped", func() error {
			_, err := cluster.TryQueryOne[string](r.pair.primary, "select pg_drop_replication_slot($1)::text", s.slot)
			return err
		})
	}
}
