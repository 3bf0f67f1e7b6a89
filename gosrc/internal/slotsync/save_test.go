package slotsync

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// advance moves all slots of the primary.
func (b *bench) advance() {
	for i := range b.primary.state.Slots {
		s := &b.primary.state.Slots[i]
		s.RestartLSN, s.ConfirmedFlushLSN, s.CatalogXmin = 1050, 1200, 710
	}
}

func (b *bench) disk(name string) host.Slot {
	b.t.Helper()
	for _, s := range b.host.Disk() {
		if s.Name == name {
			return s
		}
	}
	b.t.Fatalf("no slot %q", name)
	return host.Slot{}
}

func TestDiskFollows(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.advance()
		b.host.Faults["SaveSlot a"] = errors.New("disk full")
		b.pass("a updated ready")
		require.Equal(t, host.LSN(1200), b.slot("a").ConfirmedFlushLSN)
		require.Equal(t, host.LSN(1000), b.disk("a").RestartLSN)
		b.feed()
		require.Equal(t, host.XID(700), b.primary.state.Physical.CatalogXmin, "what disk may bring back is held")

		time.Sleep(w(b.worker))
		b.pass("a failed failed error")
		delete(b.host.Faults, "SaveSlot a")
		time.Sleep(savePause)
		b.pass("a failed failed error")
		b.pass("a unchanged ready")
		require.Equal(t, host.LSN(1050), b.disk("a").RestartLSN)
		b.feed()
		require.Equal(t, host.XID(710), b.primary.state.Physical.CatalogXmin)

		b.primary.slot("a").ConfirmedFlushLSN = 1250
		b.host.Calls()
		b.pass("a updated ready")
		b.calls("MoveSlots a")
	})
}

// w is the time until the next pass.
func w(w *Worker) time.Duration { return time.Until(w.due) }

// A nap that ends for saving alone makes no pass.
func TestSavesBetweenPasses(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.Values["replsync.slot_naptime_min"], b.host.Values["replsync.slot_naptime_max"] = "5000", "5000"
		b.advance()
		b.host.Faults["SaveSlot a"] = errors.New("disk full")
		nap, _, err := b.turn(host.Wakeup{Sync: true})
		require.NoError(t, err)
		b.calls("MoveSlots a", "SaveSlot a")
		require.Equal(t, savePause, nap)
		require.Len(t, b.host.Passes(), 1)
		clear(b.host.Faults)
		time.Sleep(nap)
		nap, _, err = b.turn(host.Wakeup{Timeout: true})
		require.NoError(t, err)
		b.calls("SaveSlot a")
		require.Empty(t, b.host.Passes())
		require.Equal(t, 4*time.Second, nap)
	})
}

// What a new slot of the primary begins at goes on to be asked for, as long as it is asked for still.
func TestUnsavedIsHeldForNewSlots(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.advance()
		b.host.Faults["SaveSlot a"] = errors.New("disk full")
		b.pass("a updated ready")
		clear(b.host.Faults)
		b.primary.state.Files = primary.NoAccess
		b.primary.state.Slots = append(b.primary.state.Slots, row("new"))
		time.Sleep(savePause)
		b.host.Calls()
		for range 3 {
			b.worker.due = time.Time{}
			_, _, err := b.turn(host.Wakeup{Timeout: true})
			require.NoError(t, err)
		}
		b.calls("SaveSlot a")
		require.Equal(t, host.LSN(1050), b.disk("a").RestartLSN)
		b.feed()
		require.Equal(t, row("new").CatalogXmin, b.primary.state.Physical.CatalogXmin)
	})
}

// Saving takes turns with what else there is to do, and comes to an end.
func TestSavesTakeTurns(t *testing.T) {
	for _, off := range []bool{false, true} {
		inBench(t, 15, func(t *testing.T, b *bench) {
			for i := range 20 {
				b.with(row(fmt.Sprintf("s%02d", i)))
			}
			b.host.Values["replsync.slot_naptime_min"], b.host.Values["replsync.slot_naptime_max"] = "5000", "5000"
			b.advance()
			b.host.Before = func(call string) {
				if strings.HasPrefix(call, "SaveSlot") {
					time.Sleep(3 * time.Millisecond)
				}
			}
			nap, _, err := b.turn(host.Wakeup{Sync: true})
			require.NoError(t, err)
			require.Zero(t, nap)
			require.Equal(t, host.LSN(1000), b.disk("s19").RestartLSN)
			if off {
				b.host.Values["replsync.sync_slots"] = "off"
			}
			for nap == 0 {
				nap, _, err = b.turn(host.Wakeup{Timeout: true})
				require.NoError(t, err)
			}
			require.Equal(t, host.LSN(1050), b.disk("s19").RestartLSN)
			if !off {
				require.Len(t, b.host.Passes(), 1)
			}
		})
	}
}

func TestDiskFollowsBeforeTheWorkerIsOff(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"), row("b"))
		b.advance()
		b.host.Faults["SaveSlot"] = errors.New("disk full")
		b.pass("a updated ready", "b updated ready")
		clear(b.host.Faults)
		b.host.Values["replsync.sync_slots"] = "off"
		b.host.Calls()
		_, state, err := b.turn(host.Wakeup{Reload: true})
		require.NoError(t, err)
		require.Equal(t, host.Off, state)
		b.calls("SaveSlot a", "SaveSlot b")
	})
}

// While a restartpoint runs, restart_lsn moves with disk only.
func TestMoveConfirmedAlone(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.advance()
		b.host.Moves["a"] = host.MoveConfirmed
		b.host.Faults["SaveSlot a"] = errors.New("disk full")
		b.pass("a updated ready")
		require.Equal(t, host.LSN(1200), b.slot("a").ConfirmedFlushLSN)
		require.Equal(t, host.LSN(1000), b.slot("a").RestartLSN)
		clear(b.host.Faults)
		time.Sleep(savePause)
		_, _, err := b.turn(host.Wakeup{Timeout: true})
		require.NoError(t, err)
		require.Equal(t, copyOf(*b.primary.slot("a")), b.slot("a"))
	})
}

// Many files would take long: what was confirmed goes first.
func TestConfirmedBeforeFiles(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		var moved, unchanged []string
		for i := range 2 * manySnapshots {
			b.with(row(fmt.Sprintf("s%03d", i)))
			moved = append(moved, fmt.Sprintf("s%03d updated ready", i))
			unchanged = append(unchanged, fmt.Sprintf("s%03d unchanged ready", i))
			lsn := host.LSN(1010 + i)
			b.primary.snapshots[lsn] = snapshotFile(lsn.String())
		}
		for i := range b.primary.state.Slots {
			s := &b.primary.state.Slots[i]
			s.RestartLSN, s.ConfirmedFlushLSN = host.LSN(1010+i), 1200
		}
		b.pass(moved...)
		b.asked("Read standby")
		require.Equal(t, host.LSN(1000), b.slot("s000").RestartLSN)
		require.Zero(t, w(b.worker), "the files follow at once")
		for range 2 {
			_, _, err := b.turn(host.Wakeup{Timeout: true})
			require.NoError(t, err)
		}
		b.host.Passes()
		for _, s := range b.primary.state.Slots {
			require.Equal(t, s.RestartLSN, b.slot(s.Name).RestartLSN)
			require.NotNil(t, b.snapshotHere(s.RestartLSN))
		}
		b.pass(unchanged...)
	})
}

// A slot that has confirmed more whenever it is looked at gets its file all the same.
func TestFilesFollowWhateverMoves(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.advance()
		b.primary.onRead = func() { b.primary.slot("a").ConfirmedFlushLSN++ }
		for i, restart := range []host.LSN{1000, 1050} {
			_, _, err := b.turn(host.Wakeup{Timeout: true})
			require.NoError(t, err)
			require.Equal(t, restart, b.slot("a").RestartLSN)
			require.Equal(t, host.LSN(1201+i), b.slot("a").ConfirmedFlushLSN)
		}
	})
}

// A pass that was asked for has its files follow too, with the worker off.
func TestFilesFollowWithTheWorkerOff(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		for i := range 2 * fewSnapshots {
			b.with(row(fmt.Sprintf("s%03d", i)))
			b.primary.snapshots[host.LSN(1010+i)] = snapshotFile("any")
		}
		for i := range b.primary.state.Slots {
			s := &b.primary.state.Slots[i]
			s.RestartLSN, s.ConfirmedFlushLSN = host.LSN(1010+i), 1200
		}
		b.host.Values["replsync.sync_slots"] = "off"
		nap, _, err := b.turn(host.Wakeup{Sync: true})
		require.NoError(t, err)
		for range 3 {
			require.Zero(t, nap)
			if nap, _, err = b.turn(host.Wakeup{Timeout: true}); nap != 0 {
				break
			}
			require.NoError(t, err)
		}
		require.Negative(t, nap)
		for _, s := range b.primary.state.Slots {
			require.Equal(t, s.RestartLSN, b.disk(s.Name).RestartLSN)
		}
	})
}

// Whatever a crash interrupts, disk has copies that were the primary's once, complete, and protected there. So has memory, which
// is what a promotion finds. A pass that nobody asked for leaves the files to a second one.
func TestCrashBetweenAnySteps(t *testing.T) {
	for _, asked := range []bool{true, false} {
		for step, done := 0, false; !done; step++ {
			inBench(t, 15, func(t *testing.T, b *bench) {
				b.with(row("a"), row("b"))
				b.advance()
				done = b.crashAt(step, asked)
				b.host.Passes()
				b.restart()
				b.feedback(true)
				_, _, err := b.turns(t.Context(), host.Wakeup{Timeout: true, Sync: asked})
				require.NoError(t, err)
				for _, r := range b.host.Passes()[0].Slots {
					require.Equal(t, stateReady, r.State, "step %d", step)
					require.Equal(t, host.LSN(1200), r.ConfirmedFlushLSN, "step %d", step)
				}
				for _, name := range []string{"a", "b"} {
					require.Equal(t, copyOf(*b.primary.slot(name)), b.disk(name), "step %d", step)
				}
			})
		}
	}
}

// crashAt lets copies that are to move do so, but for a crash before some request, and tells whether there are fewer.
func (b *bench) crashAt(step int, asked bool) (done bool) {
	b.t.Helper()
	ctx, crash := context.WithCancel(b.t.Context())
	defer crash()
	requests := 0
	next := func() {
		b.feed() // as early as can be
		if requests == step {
			crash()
		}
		requests++
	}
	b.host.Before = func(string) { next() }
	b.primary.onRead, b.primary.onFetch = next, next
	_, _, _ = b.turns(ctx, host.Wakeup{Timeout: true, Sync: asked})
	done = ctx.Err() == nil
	b.host.Before, b.primary.onRead, b.primary.onFetch = nil, nil, nil
	if done && !asked {
		require.Len(b.t, b.host.Passes(), 2)
	}
	for _, crashed := range []bool{false, true} {
		if crashed {
			b.host.Crash()
		}
		for _, name := range []string{"a", "b"} {
			s := b.slot(name)
			s.Unsaved = false
			before, after := copyOf(row(name)), copyOf(*b.primary.slot(name))
			confirmed := before
			confirmed.ConfirmedFlushLSN = after.ConfirmedFlushLSN
			require.False(b.t, s.CatalogXmin.Precedes(b.primary.state.Physical.CatalogXmin), "step %d", step)
			require.Contains(b.t, []host.Slot{before, confirmed, after}, s, "step %d", step)
			if s.RestartLSN == after.RestartLSN {
				require.NotNil(b.t, b.snapshotHere(after.RestartLSN), "step %d", step)
			}
		}
	}
	return done
}

// turns is one wake-up, and what follows it at once.
func (b *bench) turns(ctx context.Context, wake host.Wakeup) (nap time.Duration, state host.State, err error) {
	nap, state, err = b.worker.turn(ctx, wake)
	for range 8 {
		if err != nil || nap != 0 {
			break
		}
		nap, state, err = b.worker.turn(ctx, host.Wakeup{Timeout: true})
	}
	return nap, state, err
}
