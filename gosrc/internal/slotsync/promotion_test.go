package slotsync

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
)

func TestPromotion(t *testing.T) {
	for _, seen := range []bool{true, false} {
		inBench(t, 17, func(t *testing.T, b *bench) {
			ready := row("ready")
			b.with(ready)
			waiting := copyOf(row("waiting"))
			waiting.Plugin, waiting.Marker = placeholder, marker{Need: 700}.String()
			user := host.Slot{Name: "user", Plugin: "pgoutput", Logical: true}
			demoted := copyOf(row("demoted"))
			demoted.Marker = marker{}.String()
			busy := copyOf(row("busy"))
			busy.ActivePID = 7
			b.host.Put(waiting, demoted, user, busy)
			if !seen {
				b.restart()
			}
			b.host.State.InRecovery = false
			_, _, err := b.turn(host.Wakeup{Timeout: true})
			require.ErrorIs(t, err, ErrPromoted)
			if seen {
				require.True(t, b.primary.closed)
			}
			_, ok := b.host.Slot("waiting")
			require.False(t, ok)
			_, ok = b.host.Slot("demoted")
			require.False(t, ok)
			require.Equal(t, user, b.slot("user"))
			for _, name := range []string{"ready", "busy"} {
				mark, _ := parseMarker(b.slot(name).Marker)
				require.True(t, mark.Promoted)
				require.True(t, mark.Proven)
			}
			logs := b.host.Logs()
			require.Len(t, logs, 1)
			require.Contains(t, logs[0].Detail, "2 copies")
			require.Contains(t, logs[0].Detail, "2 that were not ready")

			// A standby once more: what was a slot here is a leftover now.
			b.restart()
			b.host.State.InRecovery = true
			b.host.Lock(func() { busy.ActivePID = 0 })
			b.host.Put(func() host.Slot { s := b.slot("busy"); s.ActivePID = 0; return s }())
			b.turn(host.Wakeup{})
			require.Equal(t, copyOf(ready), b.slot("ready"))
			_, ok = b.host.Slot("busy")
			require.False(t, ok)
		})
	}
}

func TestPromotionIsSettledLater(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.State.InRecovery = false
		b.host.Faults["UpdateSlot"] = host.Errorf("55006", "active")
		timeout, _, err := b.turn(host.Wakeup{Timeout: true})
		require.NoError(t, err)
		require.Equal(t, leftoverNap, timeout)
		delete(b.host.Faults, "UpdateSlot")
		_, _, err = b.turn(host.Wakeup{Timeout: true})
		require.ErrorIs(t, err, ErrPromoted)
	})
}

// A promotion that comes between the plan and its drops leaves the copies: they are the slots now.
func TestDropMeetsPromotion(t *testing.T) {
	for _, triggered := range []bool{true, false} {
		inBench(t, 15, func(t *testing.T, b *bench) {
			b.with(row("gone"), row("anew"))
			b.primary.drop("gone")
			b.primary.slot("anew").Plugin = "wal2json"
			b.host.Before = func(call string) {
				if strings.HasPrefix(call, "DropSlot") {
					b.host.Lock(func() { b.host.State.InRecovery, b.host.State.PromoteTriggered = triggered, true })
				}
			}
			_, _, err := b.turn(host.Wakeup{Sync: true})
			require.NoError(t, err)
			require.Contains(t, b.host.Calls(), "DropSlot gone")
			b.usable("gone", true)
			b.usable("anew", true)

			b.host.Lock(func() { b.host.State.InRecovery = false })
			_, _, err = b.turn(host.Wakeup{Timeout: true})
			require.ErrorIs(t, err, ErrPromoted)
			for _, name := range []string{"gone", "anew"} {
				mark, _ := parseMarker(b.slot(name).Marker)
				require.True(t, mark.Promoted && mark.Proven, name)
			}
		})
	}
}

func TestBeingPromoted(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.State.PromoteTriggered = true
		timeout, _, err := b.turn(host.Wakeup{Sync: true})
		require.NoError(t, err)
		require.Equal(t, promotionNap, timeout)
		require.ErrorContains(t, b.host.Passes()[0].Err, "being promoted")
		b.asked()
	})
}

// A marker of another version may call a slot ready that a consumer goes on with.
func TestPromotionKeepsWhatItCannotRead(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		other, waiting := copyOf(row("other")), copyOf(row("waiting"))
		other.Marker, waiting.Marker, waiting.Plugin = "v=9", "v=9", placeholder
		b.host.Put(other, waiting)
		b.host.State.InRecovery = false
		_, _, err := b.turn(host.Wakeup{Timeout: true})
		require.ErrorIs(t, err, ErrPromoted)
		require.Equal(t, other, b.slot("other"))
		_, ok := b.host.Slot("waiting")
		require.False(t, ok)
		require.Contains(t, b.host.Logs()[0].Text, `"other" is kept`)
	})
}
