package slotsync

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

// check calls failover_check() and returns the rows that are not true, as "f slot a" or "? primary".
func (b *bench) check() (rows []string) {
	b.t.Helper()
	found := b.host.Check()
	synctest.Wait() // until the connection is closed
	for _, r := range found {
		switch {
		case r.OK == nil:
			rows = append(rows, "? "+r.Name+" "+r.Object)
		case !*r.OK:
			rows = append(rows, "f "+r.Name+" "+r.Object)
		}
	}
	return rows
}

func (b *bench) attend() {
	safego.Go(func() error { return b.worker.Attend(b.t.Context()) }, nil)
}

func TestCheckOfWell(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.host.Values["replsync.connect_timeout"] = "1000"
		b.host.Values["max_replication_slots"] = "10"
		b.primary.inspection.Active, b.primary.inspection.HoldBack = true, "standby"
		b.primary.inspection.FlushLSN = 1
		b.with(row("a"))
		b.attend()
		require.Empty(t, b.check())
		require.True(t, b.primary.closed)

		b.primary.state.Slots = append(b.primary.state.Slots, row("b"))
		require.Equal(t, []string{"f slot b"}, b.check())
		b.host.Values["replsync.slots"] = "a"
		require.Empty(t, b.check())
		b.host.Values["hot_standby_feedback"] = "off"
		require.Equal(t, []string{"f setting hot_standby_feedback"}, b.check())
	})
}

// A check does not wait for a pass, nor for a primary beyond replsync.connect_timeout; one before the first pass waits for that as
// long.
func TestCheckWithoutPrimary(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.host.Values["replsync.connect_timeout"] = "1000"
		b.host.Values["max_replication_slots"] = "10"
		b.host.Put(copyOf(row("a")))
		b.primary.hang = true
		b.attend()
		gone := []string{"? primary ", "? last_pass ", "? rights ", "? physical_slot standby"}
		began := time.Now()
		require.Equal(t, append(gone, "f slot a", "? lag "), b.check())
		require.Equal(t, 900*time.Millisecond, time.Since(began))

		// From then on what a pass shows counts, even that it has not reached the primary.
		b.primary.hang, b.primary.err = false, host.Errorf("08006", "gone")
		_, _, err := b.turn(host.Wakeup{})
		require.NoError(t, err)
		require.Equal(t, append(gone, "? lag "), b.check())

		// A server that is not the primary is told from one that cannot be reached.
		b.primary.err, b.primary.state.SystemIdentifier = nil, 43
		require.Contains(t, b.check(), "f primary ")
	})
}

// A lapse that no pass has judged yet makes copies unsafe on 15, where nobody else would notice.
func TestCheckSeesLapses(t *testing.T) {
	signs := map[string]func(b *bench){
		"feedback": func(b *bench) { b.host.Lock(func() { b.host.State.FeedbackLapses++ }) },
		"restart":  func(b *bench) { b.primary.state.PostmasterStart = "2" },
		"stream":   func(b *bench) { b.primary.state.Physical.WalSender = "11@2" },
	}
	for name, sign := range signs {
		for _, major := range []int{15, 16} {
			t.Run(fmt.Sprint(name, major), func(t *testing.T) {
				inBench(t, major, func(t *testing.T, b *bench) {
					b.host.Values["replsync.connect_timeout"] = "1000"
					b.host.Values["max_replication_slots"] = "10"
					b.primary.inspection.Active, b.primary.inspection.HoldBack = true, "standby"
					b.primary.inspection.FlushLSN = 1
					b.with(row("a"))
					b.attend()
					require.Empty(t, b.check())
					sign(b)
					if major < firstConflict {
						require.Equal(t, []string{"f slot a"}, b.check())
					} else {
						require.Empty(t, b.check())
					}
					_, _, err := b.turn(host.Wakeup{Sync: true})
					require.NoError(t, err)
					require.Empty(t, b.check())
				})
			})
		}
	}
}

func TestCheckThatFails(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.attend()
		b.host.Lock(func() { b.host.Faults["Slots"] = errors.New("x") })
		require.Equal(t, []string{"f worker "}, b.check())
	})
}

// What checks go by: since when passes find no primary, and that WAL still comes.
func TestRecord(t *testing.T) {
	inBench(t, 17, func(t *testing.T, b *bench) {
		b.with(row("a"))
		good := time.Now()
		require.Equal(t, good, b.worker.record.passes.Last)
		fails := func(err error) {
			time.Sleep(time.Second) // of the fake clock
			b.primary.err = err
			_, _, err = b.turn(host.Wakeup{})
			require.NoError(t, err)
		}
		fails(host.Errorf("08006", "gone"))
		first := time.Now()
		fails(host.Errorf("57P03", "starting up"))
		p, _ := b.worker.record.read()
		require.Equal(t, good, p.Last)
		require.Equal(t, first, p.Trying)
		require.NotNil(t, p.Failed)
		require.Equal(t, good, p.LastWAL)

		b.host.State.FlushLSN++
		fails(host.Errorf("42501", "permission denied"))
		p, _ = b.worker.record.read()
		require.Zero(t, p.Trying)
		require.Equal(t, time.Now(), p.LastWAL)

		b.host.Values["hot_standby_feedback"] = "off"
		fails(nil)
		p, _ = b.worker.record.read()
		require.NotNil(t, p.Refused)
		require.Equal(t, good, p.Last)

		b.host.Values["hot_standby_feedback"] = "on"
		fails(nil)
		p, _ = b.worker.record.read()
		require.Equal(t, time.Now(), p.Last)
		require.Nil(t, p.Refused)
	})
}
