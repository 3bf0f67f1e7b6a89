package slotsync

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Before 16 a copy does not begin where a server was started.
func TestStarts(t *testing.T) {
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"), row("b"))
		b.host.Starts = map[host.LSN]bool{1050: true}
		b.advance()
		b.pass("a updated ready", "b updated ready")
		for _, name := range []string{"a", "b"} {
			require.Equal(t, host.LSN(1200), b.slot(name).ConfirmedFlushLSN)
			require.Equal(t, host.LSN(1000), b.slot(name).RestartLSN)
			require.Equal(t, host.XID(700), b.slot(name).CatalogXmin)
		}
		b.host.Calls()
		b.pass("a unchanged ready", "b unchanged ready")
		require.Equal(t, []string{"IsRunningXacts 0/41A"}, b.host.Calls(), "once for all copies")
		time.Sleep(w(b.worker)) // on the fake clock
		b.pass("a unchanged ready", "b unchanged ready")
		require.Empty(t, b.host.Calls(), "an idle pass")
		require.Equal(t, time.Now(), b.worker.memory.synced["a"], "it stands where it is to be")

		b.primary.slot("a").RestartLSN = 1060
		b.primary.snapshots[1060] = b.primary.snapshots[1050]
		b.pass("a updated ready", "b unchanged ready")
		require.Equal(t, host.LSN(1060), b.slot("a").RestartLSN)

		time.Sleep(w(b.worker)) // on the fake clock
		b.host.Faults["IsRunningXacts"] = host.Errorf("58P01", "no such file")
		b.pass("a unchanged ready", "b failed failed error")
		require.Equal(t, host.LSN(1000), b.slot("b").RestartLSN)
	})
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.Starts = map[host.LSN]bool{1050: true}
		b.advance()
		b.primary.state.PostmasterStart = "another"
		b.pass("a updated ready")
		require.Equal(t, host.LSN(1050), b.slot("a").RestartLSN, "it would not be proven where it was")
	})
	inBench(t, 15, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.Starts = map[host.LSN]bool{1050: true}
		at := row("b")
		at.RestartLSN = 1050
		b.primary.state.Slots = append(b.primary.state.Slots, at)
		b.primary.snapshots[1050] = b.primary.snapshots[1000]
		b.pass("a unchanged ready", "b created ready")
		b.primary.slot("a").RestartLSN = 1050
		b.pass("a unchanged ready", "b unchanged ready")
		require.Equal(t, host.LSN(1000), b.slot("a").RestartLSN, "the file is here for another copy, which was made there")
	})
	inBench(t, 16, func(t *testing.T, b *bench) {
		b.with(row("a"))
		b.host.Starts = map[host.LSN]bool{1050: true}
		b.advance()
		b.pass("a updated ready")
		require.Equal(t, host.LSN(1050), b.slot("a").RestartLSN)
	})
}
