package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/replsync/replsync/regress/cluster"
)

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
