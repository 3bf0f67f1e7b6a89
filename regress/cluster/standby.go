package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// AsPgError returns the server's error in err.
func AsPgError(err error) (*pgconn.PgError, bool) {
	var pgErr *pgconn.PgError
	return pgErr, errors.As(err, &pgErr)
}

// Standby makes a physical standby of the server with pg_basebackup, its slot
// and all settings included, and starts it. It waits until the standby accepts
// connections, not until it has caught up.
func (s *Server) Standby(t T, opts ...Option) *Server {
	t.Helper()
	o := gather(opts)
	standby := newServer(t, s.Major, o, "standby")
	args := []string{
		"-D", standby.DataDir(), "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-d", fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable", s.Port),
	}
	if !o.noSlot {
		standby.Slot = o.slot
		if standby.Slot == "" {
			standby.Slot = strings.ReplaceAll(standby.Name, "-", "_")
		}
		args = append(args, "-C", "-S", standby.Slot)
	}
	cmd := standby.Command("pg_basebackup", append(args, o.backupArgs...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup for %s: %v\n%s", standby.Name, err, out)
	}
	settings := o.config()
	if o.conninfo != "" {
		settings["primary_conninfo"] = o.conninfo
		standby.dropAutoConf(t, "primary_conninfo")
	}
	standby.AppendConf(t, settings)
	if !o.notStarted {
		standby.Start(t)
	}
	return standby
}

// dropAutoConf removes a parameter from postgresql.auto.conf of a server that is
// not running.
func (s *Server) dropAutoConf(t T, name string) {
	t.Helper()
	var kept strings.Builder
	for line := range strings.Lines(s.ReadFile(t, "postgresql.auto.conf")) {
		if !strings.HasPrefix(line, name+" ") {
			kept.WriteString(line)
		}
	}
	s.WriteFile(t, "postgresql.auto.conf", kept.String())
}

// CurrentLSN is the server's WAL position: the end of what it has written, or of
// what it has replayed when it is a standby.
func (s *Server) CurrentLSN(t T) LSN {
	t.Helper()
	return QueryOne[LSN](t, s, `select case when pg_is_in_recovery()
		then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end`)
}

// WaitReplayed waits until the standby has replayed everything that the server
// has written by now. It writes nothing itself: no transaction id, no WAL.
func (s *Server) WaitReplayed(t T, standby *Server) {
	t.Helper()
	target := s.CurrentLSN(t)
	start := time.Now()
	Eventually(t, DefaultDeadline, fmt.Sprintf("%s to replay up to %v of %s", standby.Name, target, s.Name), func() error {
		replayed, err := standby.replayed()
		if err != nil || replayed >= target {
			return err
		}
		// A record outside of a transaction may stay in the WAL buffers, and is
		// not on its way then. A second is five rounds of the WAL writer.
		if time.Since(start) > time.Second {
			flushed, err := TryQueryOne[LSN](s, `select case when pg_is_in_recovery()
				then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end`)
			if err == nil && replayed >= flushed {
				return nil
			}
		}
		return fmt.Errorf("it has replayed up to %v", replayed)
	})
}

func (s *Server) replayed() (LSN, error) {
	return TryQueryOne[LSN](s, "select coalesce(pg_last_wal_replay_lsn(), '0/0')")
}

// WaitReplayedTo waits until the standby has replayed up to the position.
func (s *Server) WaitReplayedTo(t T, target LSN) {
	t.Helper()
	Eventually(t, DefaultDeadline, fmt.Sprintf("%s to replay up to %v", s.Name, target), func() error {
		replayed, err := s.replayed()
		if err == nil && replayed < target {
			err = fmt.Errorf("it has replayed up to %v", replayed)
		}
		return err
	})
}

// WaitFeedback waits until the server holds an xmin for the standby's feedback
// on its physical slot, so that what happens from now on does not overtake it.
func (s *Server) WaitFeedback(t T, standby *Server) {
	t.Helper()
	Eventually(t, DefaultDeadline, fmt.Sprintf("the feedback of %s on %s", standby.Name, s.Name), func() error {
		xmin, err := TryQueryOne[*uint32](s, "select xmin::text::int8 from pg_replication_slots where slot_name = $1", standby.Slot)
		if err == nil && xmin == nil {
			err = errors.New("the slot has no xmin")
		}
		return err
	})
}
