package slotsync

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/host/hosttest"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

// run starts the worker; the result comes when it ends.
func (b *bench) run(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	safego.Go(func() error { return b.worker.Run(ctx) }, func(err error) { done <- err })
	synctest.Wait()
	return done
}

func (b *bench) wake(w host.Wakeup) {
	b.host.Wake(w)
	synctest.Wait()
}

func timeouts(naps []hosttest.Rest) (ms []int64) {
	for _, n := range naps {
		ms = append(ms, n.Timeout.Milliseconds())
	}
	return ms
}

func TestNapGrowsWhileNothingMoves(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.restart()
		ctx, cancel := context.WithCancel(t.Context())
		done := b.run(ctx)
		time.Sleep(6 * time.Second)
		naps := timeouts(b.host.Naps())
		require.Equal(t, []int64{0, 100, 200, 400, 800, 1600, 1600, 1600}, naps)

		b.host.Lock(func() { b.primary.slot("a").ConfirmedFlushLSN = 1200 })
		time.Sleep(1600 * time.Millisecond)
		require.Equal(t, []int64{100, 200, 400, 800}, timeouts(b.host.Naps())[:4])

		time.Sleep(10 * time.Second)
		b.host.Naps()
		b.wake(host.Wakeup{Reload: true})
		require.Equal(t, []int64{100}, timeouts(b.host.Naps()))
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.True(t, b.primary.closed)
	})
}

func TestTroubleIsLoggedOnce(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		ctx, cancel := context.WithCancel(t.Context())
		b.primary.err = host.Errorf("08006", "no route")
		done := b.run(ctx)
		time.Sleep(20 * time.Second)
		logs := b.host.Logs()
		require.Len(t, logs, 1)
		require.Equal(t, "no route", logs[0].Text)
		naps := timeouts(b.host.Naps())
		require.Equal(t, []int64{0, 1000, 1600, 1600}, naps[:4])

		b.host.Lock(func() { b.primary.err = host.Errorf("08006", "connection refused") })
		time.Sleep(5300 * time.Millisecond) // between two passes
		require.Len(t, b.host.Logs(), 1)
		b.host.Lock(func() { b.primary.err = nil })
		time.Sleep(5 * time.Second)
		logs = b.host.Logs()
		require.Len(t, logs, 1)
		require.Contains(t, logs[0].Text, "again")
		cancel()
		<-done
	})
}

func TestRefusalWaitsForReload(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.host.Values["primary_slot_name"] = ""
		timeout, state, err := b.turn(host.Wakeup{Sync: true})
		require.NoError(t, err)
		require.Equal(t, host.Blocked, state)
		require.Equal(t, 1600*time.Millisecond, timeout)
		require.True(t, host.HasCode(b.host.Passes()[0].Err, "55000"))
		require.Len(t, b.host.Logs(), 1)
		b.turn(host.Wakeup{Timeout: true})
		require.Empty(t, b.host.Logs())
		b.asked()
	})
}

func TestOff(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.Values["replsync.sync_slots"] = "off"
		timeout, state, err := b.turn(host.Wakeup{Reload: true})
		require.NoError(t, err)
		require.Negative(t, timeout)
		require.Equal(t, host.Off, state)
		require.Equal(t, string(reasonNotSynchronized), b.host.Passes()[0].Slots[0].Reason)
		require.True(t, b.primary.closed)

		timeout, state, err = b.turn(host.Wakeup{Sync: true})
		require.NoError(t, err)
		require.Negative(t, timeout)
		require.Equal(t, host.Off, state)
		require.NoError(t, b.host.Passes()[0].Err)
	})
}

func TestReconnectOnReload(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.turn(host.Wakeup{Reload: true})
		require.False(t, b.primary.closed)
		opened := 0
		b.worker.open = func(context.Context, host.Host, *Settings) (Primary, error) {
			opened++
			return b.primary, nil
		}
		b.host.Values["replsync.primary_conninfo"] = "host=q"
		b.turn(host.Wakeup{Reload: true})
		require.True(t, b.primary.closed)
		require.Equal(t, 1, opened)
		require.Equal(t, "host=q", b.worker.settings.Conninfo)
	})
}

func TestOnPrimary(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.host.State.InRecovery = false
		_, _, err := b.turn(host.Wakeup{Sync: true, Command: host.DropSlots, Argument: "*"})
		require.ErrorIs(t, err, ErrPromoted)
		require.ErrorContains(t, b.host.Passes()[0].Err, "can only be synchronized to a standby server")
		require.True(t, host.HasCode(b.host.Results()[0].Err, "55000"))
	})
}

func TestPanicIsAnError(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.primary.onRead = func() { panic("lost") }
		_, _, err := b.turn(host.Wakeup{Timeout: true})
		require.NoError(t, err)
		require.ErrorContains(t, b.host.Passes()[0].Err, "internal error: lost")
		require.Contains(t, b.host.Logs()[0].Detail, "worker_test.go")
	})
}

func TestHostFailureEndsTheWorker(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.host.Faults["PassDone"] = errors.New("gone")
		require.EqualError(t, <-b.run(t.Context()), "gone")
	})
}

func TestCommandIsAnsweredWhenTheHostFails(t *testing.T) {
	for _, fault := range []string{"Settings", "Recovery"} {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.host.Faults[fault] = errors.New("gone")
			_, _, err := b.turn(host.Wakeup{Command: host.DropSlots, Argument: "*"})
			require.EqualError(t, err, "gone")
			require.EqualError(t, b.host.Results()[0].Err, "gone")
		})
	}
}

func TestFeedbackThatNeverComes(t *testing.T) {
	for _, fault := range []string{"", "RequestFeedback"} {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.feedback(false)
			b.primary.state.Slots = append(b.primary.state.Slots, row("a"))
			if fault != "" {
				b.host.Faults[fault] = errors.New("no walreceiver")
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := b.run(ctx)
			time.Sleep(10 * time.Second)
			naps := timeouts(b.host.Naps())
			require.EqualValues(t, 100, naps[len(naps)-1], "it may still come")
			time.Sleep(20 * time.Second)
			naps = timeouts(b.host.Naps())
			require.EqualValues(t, 1600, naps[len(naps)-1])
			cancel()
			<-done
		})
	}
}

func TestProgress(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.feedback(false)
		b.primary.state.Slots = append(b.primary.state.Slots, row("a"))
		b.turn(host.Wakeup{})
		require.Equal(t, []string{
			"connecting 0/0", "reading 0/0", "creating 0/1", "updating 0/1", "waiting for feedback 0/1",
		}, slices.Compact(b.host.Phases()))
		b.primary.drop("a")
		b.turn(host.Wakeup{})
		require.Equal(t, []string{"reading 0/0", "dropping 0/1"}, b.host.Phases())
		b.primary.state.Slots = append(b.primary.state.Slots, row("a"))
		b.turn(host.Wakeup{})
		b.host.Phases()
		b.turn(host.Wakeup{})
		require.Equal(t, []string{"reading 0/0", "updating 0/1"}, b.host.Phases())
	})
}

// A pass that waits for the primary ends when it is to ask another one, or none.
func TestReloadEndsPass(t *testing.T) {
	for name, value := range map[string]string{"primary_conninfo": "host=other", "replsync.sync_slots": "off"} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 15, func(t *testing.T, b *bench) {
				b.with(row("a"))
				b.primary.hang = true
				ended := make(chan error, 1)
				safego.Go(func() error {
					_, _, err := b.turn(host.Wakeup{})
					return err
				}, func(err error) { ended <- err })
				time.Sleep(time.Minute)
				b.host.Lock(func() { b.host.State.ReloadTime = b.host.State.ReloadTime.Add(time.Second) })
				time.Sleep(time.Minute)
				require.Empty(t, b.host.Passes(), "nothing has changed that matters")
				b.host.Lock(func() {
					b.host.Values[name] = value
					b.host.State.ReloadTime = b.host.State.ReloadTime.Add(time.Second)
				})
				require.NoError(t, <-ended)
				require.Equal(t, errReload, b.host.Passes()[0].Err)
				require.Empty(t, b.host.Logs())
			})
		})
	}
}
