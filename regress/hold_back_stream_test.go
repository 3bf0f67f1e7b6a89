package regress_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// streaming is the subscriptions "held" and "free_1", each with a database and a slot of its name, that receive large
// transactions while those are in progress.
type streaming struct {
	*pair
	subscriber *cluster.Server
}

func newStreaming(t *testing.T, major int) *streaming {
	t.Helper()
	// The subscriber says nothing by itself, so that walsenders ask.
	s := &streaming{newHeldPair(t, major), cluster.New(t, major, cluster.Setting("wal_receiver_status_interval", "1h"))}
	s.primary.Set(t, "logical_decoding_work_mem", "64kB")
	s.primary.Exec(t, "create table large (id int, filler text); alter publication p add table large")
	for _, name := range []string{"held", "free_1"} {
		s.subscriber.Exec(t, "create database "+name)
		db := s.subscriber.DB(name)
		db.Exec(t, "create table t (id int primary key); create table large (id int, filler text)")
		db.Exec(t, fmt.Sprintf(`create subscription %[1]s connection 'host=127.0.0.1 port=%[2]d user=postgres dbname=postgres'
			publication p with (streaming = on, copy_data = false)`, name, s.primary.Port))
	}
	return s
}

// received is what a subscription was told last, by a change or a keepalive, and when; zero while it is not connected.
func (s *streaming) received(t *testing.T, name string) (position cluster.LSN, at time.Time) {
	t.Helper()
	rows := s.subscriber.Rows(t, `select received_lsn::text as position, last_msg_receipt_time as at from pg_stat_subscription
		where subname = $1 and relid is null and received_lsn is not null`, name)
	if len(rows) == 0 {
		return 0, time.Time{}
	}
	position, err := cluster.ParseLSN(rows[0]["position"].(string))
	require.NoError(t, err)
	return position, rows[0]["at"].(time.Time)
}

// streamed counts the parts of transactions in progress that a slot has sent.
func (s *streaming) streamed(t *testing.T, name string) int64 {
	t.Helper()
	return cluster.QueryOne[int64](t, s.primary, "select coalesce(sum(stream_count), 0)::bigint from pg_stat_replication_slots where slot_name = $1", name)
}

// grow adds to a large transaction what is more than a walsender keeps to itself, and returns where it ends.
func (s *streaming) grow(t *testing.T, exec func(sql string)) cluster.LSN {
	t.Helper()
	exec("insert into large select i, repeat('x', 100) from generate_series(1, 5000) i")
	end := s.primary.CurrentLSN(t)
	s.primary.LogStandbySnapshot(t)
	return end
}

// rows counts what a subscription has applied.
func (s *streaming) rows(t *testing.T, name string) int64 {
	t.Helper()
	return cluster.QueryOne[int64](t, s.subscriber.DB(name), "select count(*) from large")
}

// requireHeld checks for some timeouts that the subscription "held" is told nothing that the standby has not confirmed, and
// that its connection lives.
func (s *streaming) requireHeld(t *testing.T) {
	t.Helper()
	sender := senderOf(t, s.primary, "held")
	cluster.Eventually(t, cluster.DefaultDeadline, "the walsender to wait", func() bool {
		return cluster.QueryOne[bool](t, s.primary, "select wait_event = 'Extension' from pg_stat_activity where pid = $1", sender)
	})
	before, parts := time.Now(), s.streamed(t, "held")
	cluster.Eventually(t, cluster.DefaultDeadline, "the subscription to live through timeouts", func() bool {
		position, at := s.received(t, "held")
		require.LessOrEqual(t, position, confirmedBy(t, s.primary, "sb"))
		return at.Sub(before) > 2*senderTimeout
	})
	require.Equal(t, parts, s.streamed(t, "held"))
	require.Equal(t, sender, senderOf(t, s.primary, "held"))
}

// TestHoldBackStreaming has transactions that subscriptions with streaming = on receive while they are in progress.
func TestHoldBackStreaming(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		s := newStreaming(t, major)
		conn := s.primary.Connect(t)
		exec := func(sql string) {
			t.Helper()
			_, err := conn.Exec(background(t), sql)
			require.NoError(t, err)
		}
		heard := func(name string, position cluster.LSN) {
			t.Helper()
			cluster.Eventually(t, cluster.DefaultDeadline, fmt.Sprintf("%s to receive up to %v", name, position), func() error {
				if at, _ := s.received(t, name); at < position {
					return fmt.Errorf("it has received up to %v", at)
				}
				return nil
			})
		}
		var parts int64
		story(t, "with the standby", func(t *testing.T) {
			exec("begin")
			end := s.grow(t, exec)
			heard("held", end)
			heard("free_1", end)
			parts = s.streamed(t, "held")
			require.Positive(t, parts)
		})
		story(t, "the standby is down", func(t *testing.T) {
			s.standby.Stop(t, cluster.Fast)
			waitInactive(t, s.primary, "sb")
			exec("savepoint a")
			heard("free_1", s.grow(t, exec))
			s.requireHeld(t)
		})
		story(t, "the transaction ends", func(t *testing.T) {
			exec("rollback to a")
			heard("free_1", s.grow(t, exec))
			exec("commit")
			cluster.Eventually(t, cluster.DefaultDeadline, "the other subscription to apply it", func() bool {
				return s.rows(t, "free_1") == 10000
			})
			s.requireHeld(t)
			require.Zero(t, s.rows(t, "held"))
		})
		story(t, "the standby is back", func(t *testing.T) {
			sender := senderOf(t, s.primary, "held")
			s.standby.Start(t)
			cluster.Eventually(t, cluster.DefaultDeadline, "the subscription to apply it", func() bool {
				return s.rows(t, "held") == 10000
			})
			require.Greater(t, s.streamed(t, "held"), parts)
			require.Equal(t, sender, senderOf(t, s.primary, "held"))
		})
		// DROP SUBSCRIPTION is not left to the end of the servers: the workers would say that they have lost the primary.
		for _, name := range []string{"held", "free_1"} {
			s.subscriber.DB(name).Exec(t, "drop subscription "+name)
		}
	})
}
