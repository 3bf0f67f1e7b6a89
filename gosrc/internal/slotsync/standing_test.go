package slotsync

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// rows turns and returns what was published as "name state reason".
func (b *bench) rows(wake host.Wakeup) []string {
	b.t.Helper()
	_, _, err := b.turn(wake)
	require.NoError(b.t, err)
	var rows []string
	for _, p := range b.host.Passes() {
		for _, r := range p.Slots {
			rows = append(rows, r.Name+" "+r.State+" "+r.Reason)
			require.NotEmpty(b.t, r.Hint)
		}
	}
	return rows
}

// While the worker is off nobody else takes copies out of use after a lapse.
func TestOffWatchesLapses(t *testing.T) {
	for name, value := range map[string]string{
		"hot_standby_feedback": "off", "primary_slot_name": "", "wal_receiver_status_interval": "0",
	} {
		for _, major := range []int{15, 16} {
			t.Run(fmt.Sprint(name, " ", major), func(t *testing.T) {
				inBench(t, major, func(t *testing.T, b *bench) {
					b.with(row("a"))
					b.host.Values["replsync.sync_slots"] = "off"
					b.host.Values[name] = value
					require.Equal(t, []string{"a waiting feedback_off"}, b.rows(host.Wakeup{Reload: true}))
					b.usable("a", false)
					require.Empty(t, b.rows(host.Wakeup{Reload: true}), "nothing new to show")
					b.asked()
				})
			})
		}
	}
}

// Nor is a lapse hidden that was over before anybody looked.
func TestOffWatchesShortLapses(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.Values["replsync.sync_slots"] = "off"
		require.Equal(t, []string{"a waiting not_synchronized"}, b.rows(host.Wakeup{Reload: true}))
		b.usable("a", true)
		b.host.State.FeedbackLapses++
		require.Equal(t, []string{"a waiting feedback_off"}, b.rows(host.Wakeup{Reload: true}))
		b.usable("a", false)
	})
}

// A refusal for another reason does not hide a lapse.
func TestRefusedTwice(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.Values["wal_level"] = "replica"
		b.host.Values["hot_standby_feedback"] = "off"
		require.ErrorContains(t, b.passErr("a updated waiting feedback_off"), "wal_level")
		b.usable("a", false)
	})
}

// The copies are shown although nothing was read from the primary since the worker started.
func TestStanding(t *testing.T) {
	setup := func(b *bench) {
		waiting, lost := copyOf(row("waiting")), copyOf(row("lost"))
		waiting.Plugin, waiting.Marker = placeholder, marker{}.String()
		lost.Invalidated = true
		user := host.Slot{Name: "user", Plugin: "pgoutput", Logical: true}
		b.host.Put(copyOf(row("a")), waiting, lost, user)
	}
	for _, major := range []int{15, 16} {
		inBench(t, major, func(t *testing.T, b *bench) {
			setup(b)
			b.primary.err = host.Errorf("08006", "no route")
			want := []string{
				"a ready primary_not_reached", "lost invalidated wal_or_rows_removed", "waiting waiting primary_not_reached",
			}
			require.Equal(t, want, b.rows(host.Wakeup{Timeout: true}))
			require.Empty(t, b.rows(host.Wakeup{Timeout: true}), "what is shown stays")
		})
		inBench(t, major, func(t *testing.T, b *bench) {
			setup(b)
			b.host.Values["replsync.sync_slots"] = "off"
			state := stateWaiting // nobody would notice a lapse
			if major >= firstConflict {
				state = stateReady
			}
			want := []string{
				"a " + state + " not_synchronized", "lost invalidated wal_or_rows_removed", "waiting waiting not_synchronized",
			}
			require.Equal(t, want, b.rows(host.Wakeup{Reload: true}))
		})
	}
	// What happened while there was no worker counts.
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.restart()
		b.host.State.FeedbackLapses = 1
		b.primary.err = host.Errorf("08006", "no route")
		require.Equal(t, []string{"a waiting feedback_off"}, b.rows(host.Wakeup{Timeout: true}))
		b.usable("a", false)
	})
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.restart()
		b.host.Values["hot_standby_feedback"] = "off"
		require.Equal(t, []string{"a waiting feedback_off"}, b.rows(host.Wakeup{Timeout: true}))
	})
}

// Where the connection leads to the wrong server it is made anew each time: its name may lead elsewhere by now.
func TestElsewhere(t *testing.T) {
	for name, change := range map[string]func(*fakePrimary){
		"standby":    func(p *fakePrimary) { p.state.InRecovery = true },
		"past":       func(p *fakePrimary) { p.state.Timeline = 2 },
		"other":      func(p *fakePrimary) { p.state.SystemIdentifier = 1 },
		"no problem": func(*fakePrimary) {},
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 15, func(t *testing.T, b *bench) {
				b.with(row("a"))
				before := b.worker.memory.remote["a"]
				change(b.primary)
				b.primary.state.PostmasterStart = "2"
				b.primary.slot("a").Database = "other"
				opened := 0
				b.worker.open = func(context.Context, host.Host, *Settings) (Primary, error) {
					opened++
					return b.primary, nil
				}
				b.turn(host.Wakeup{Timeout: true})
				wrong := name != "no problem"
				require.Equal(t, wrong, b.primary.closed)
				require.Equal(t, wrong, before == b.worker.memory.remote["a"], "it is not observed")
				b.turn(host.Wakeup{Timeout: true})
				require.Equal(t, wrong, opened == 1)
			})
		})
	}
}

// A slot that goes while its copy waits for feedback is shown as what it is.
func TestGoneInHandshake(t *testing.T) {
	for _, want := range []string{"waiting slot_dropped", "invalidated slot_invalidated"} {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.feedback(false)
			b.primary.state.Slots = append(b.primary.state.Slots, row("a"))
			reads := 0
			b.primary.onRead = func() {
				if reads++; reads < 30 { // after the copy is made
					return
				}
				if want == "waiting slot_dropped" {
					b.primary.drop("a")
				} else {
					b.primary.slot("a").Invalidation = "wal_removed"
				}
			}
			b.pass("a created " + want)
		})
	}
}

func TestDatabaseIsRemembered(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.primary.drop("a")
		b.turn(host.Wakeup{})
		require.Equal(t, "db", b.host.Passes()[0].Slots[0].Database)
	})
}

// Trouble is the same as long as its message is; what details say may differ each time.
func TestTroubleIsKnownAgain(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		fail := func(i int) error {
			e := host.Errorf("08006", "connection lost")
			e.Detail = fmt.Sprintf("It came from port %d.", i)
			return e
		}
		for i := range 10 {
			b.primary.err = fail(i)
			b.turn(host.Wakeup{})
		}
		require.Len(t, b.host.Logs(), 1)
		for i := range 1000 {
			b.primary.err = host.Errorf("XX000", "trouble %d", i)
			b.turn(host.Wakeup{})
		}
		require.LessOrEqual(t, len(b.worker.complaints), maxComplaints)
	})
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.primary.state.Slots = append(b.primary.state.Slots, row("a"))
		for i := range 3 {
			e := host.Errorf("58030", "I/O error")
			e.Detail = fmt.Sprint(i)
			b.host.Faults["CreateSlot a"] = e
			b.turn(host.Wakeup{})
		}
		require.Len(t, b.host.Logs(), 1)
	})
}

// The log has a line for each change of a slot's state, and none while it stays.
func TestStatesAreLoggedOnce(t *testing.T) {
	inBench(t, 16, func(t *testing.T, b *bench) {
		logs := func(want ...string) {
			t.Helper()
			for range 2 {
				b.turn(host.Wakeup{})
			}
			var texts []string
			for _, l := range b.host.Logs() {
				texts = append(texts, l.Text)
			}
			require.Equal(t, want, texts)
		}
		b.with(row("a"))
		logs()
		b.primary.slot("a").ConfirmedFlushLSN++
		b.host.Moves["a"] = host.MoveRefused
		b.host.Faults["UpdateSlot a"] = host.Errorf("58030", "I/O error")
		logs(`could not synchronize replication slot "a": I/O error`)
		delete(b.host.Faults, "UpdateSlot a")
		logs(`the copy of replication slot "a" is ready`)
		b.primary.state.Slots = append(b.primary.state.Slots, row("b"))
		logs(`created a copy of replication slot "b", which is ready`)
		b.primary.slot("b").Invalidation = "wal_removed"
		logs(`dropped replication slot "b" of database with OID 5`, `replication slot "b" is not ready: slot_invalidated`)
	})
}
