package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/cluster"
)

// Servers differ from those of tests: fsync is on, and nothing happens that was not asked for.
func settings(slots int, more map[string]string) cluster.Option {
	all := map[string]string{
		"max_replication_slots": fmt.Sprint(slots + 20), "max_wal_senders": "20", "max_worker_processes": "30",
		"max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off", "shared_buffers": "128MB",
		"wal_receiver_status_interval": "1s", "hot_standby_feedback": "on", "log_replication_commands": "off",
	}
	maps.Copy(all, more)
	return cluster.Settings(all)
}

func newPrimary(b *harness.B, major, slots int, more map[string]string) *cluster.Server {
	primary := cluster.New(b, major, cluster.Preload("replsync"), cluster.Fsync(), settings(slots, more))
	primary.Exec(b, "CREATE EXTENSION replsync; CREATE TABLE t (id int)")
	b.Server("PostgreSQL %s", primary.Install().Version())
	return primary
}

// newStandby makes a standby that everybody's slot synchronization can work with.
func newStandby(b *harness.B, primary *cluster.Server, slots int, more map[string]string, opts ...cluster.Option) *cluster.Server {
	conninfo := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", primary.Port)
	s := primary.Standby(b, append([]cluster.Option{
		cluster.PrimaryConninfo(conninfo), cluster.Fsync(), settings(slots, more)}, opts...)...)
	primary.WaitFeedback(b, s)
	return s
}

// failover is what pg_create_logical_replication_slot gets after the plugin, for slots that all peers keep.
func failoverArgs(major int) string {
	if major >= firstFailover {
		return "false, false, true"
	}
	return "false, false"
}

// createSlots makes slots one by one as consumers do, each at a position of its own.
func createSlots(b *harness.B, primary *cluster.Server, n int) {
	execute(b, primary, fmt.Sprintf("SELECT pg_create_logical_replication_slot('s_' || i, 'pgoutput', %s) FROM generate_series(1, %d) i",
		failoverArgs(primary.Major), n))
}

// copySlots makes slots that have moved once already and stand at one position, as those of consumers that keep up. It takes a
// fraction of the time of creating and moving each: every creation writes a record of the running transactions,
// at each of which every other slot writes its snapshot when it moves for the first time. They begin at the current
// transaction, as core cannot copy others.
func copySlots(b *harness.B, primary *cluster.Server, n int) {
	createSlots(b, primary, 1)
	for range 2 {
		primary.LogStandbySnapshot(b)
		advanceSlots(b, primary)
	}
	execute(b, primary, fmt.Sprintf("SELECT pg_copy_logical_replication_slot('s_1', 's_' || i) FROM generate_series(2, %d) i", n))
	if primary.Major < firstFailover {
		return
	}
	// Copies are not marked, and there is no function that does it.
	var names []string
	for i := 2; i <= n; i++ {
		names = append(names, fmt.Sprintf("s_%d", i))
	}
	markFailover(b, primary, names...)
}

// markFailover has slots synchronized.
func markFailover(b *harness.B, primary *cluster.Server, names ...string) {
	ctx := context.Background()
	conn := replication(b, primary)
	defer conn.Close(ctx)
	for _, name := range names {
		if err := conn.Exec(ctx, fmt.Sprintf("ALTER_REPLICATION_SLOT %s (FAILOVER true)", name)).Close(); err != nil {
			b.Fatalf("%s: slot %s: %v", primary.Name, name, err)
		}
	}
}

// replication opens a replication connection to a database.
func replication(b *harness.B, s *cluster.Server) *pgconn.PgConn {
	conn, err := pgconn.Connect(context.Background(), s.With("replication=database").ConnString())
	if err != nil {
		b.Fatalf("%s: %v", s.Name, err)
	}
	return conn
}

// moveSlots moves restart_lsn and confirmed_flush_lsn of every logical slot, all to the same position, and waits until
// the standbys have it.
func moveSlots(b *harness.B, primary *cluster.Server) {
	for range 2 {
		primary.Exec(b, "INSERT INTO t SELECT generate_series(1, 10)")
		primary.LogStandbySnapshot(b)
	}
	advanceSlots(b, primary)
	waitReplayed(b, primary)
}

func advanceSlots(b *harness.B, primary *cluster.Server) {
	execute(b, primary, `SELECT pg_replication_slot_advance(slot_name, lsn) FROM pg_replication_slots,
		(SELECT pg_current_wal_flush_lsn() AS lsn) AS here WHERE slot_type = 'logical' AND slot_name <> 'old'`)
}

func dropSlots(b *harness.B, primary *cluster.Server) {
	execute(b, primary, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_type = 'logical'")
}

// exec runs a statement that may take longer than a test allows.
func execute(b *harness.B, s *cluster.Server, sql string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	if _, err := s.TryExec(ctx, sql); err != nil {
		b.Fatalf("%s: %s: %v", s.Name, sql, err)
	}
}

// waitFeedback waits until no standby holds an old horizon. Core cannot persist a slot that is made below it before
// the slot's consumer has advanced it.
func waitFeedback(b *harness.B, primary *cluster.Server) {
	cluster.Eventually(b, cluster.DefaultDeadline, "the feedback to be current", func() error {
		late, err := cluster.TryQueryOne[string](primary, `SELECT coalesce(string_agg(format('%s holds xmin %s and catalog_xmin %s at %s',
			slot_name, xmin, catalog_xmin, txid_current_snapshot()), ', '), '') FROM pg_replication_slots
			WHERE slot_type = 'physical' AND (xmin IS NULL OR least(xmin::text::bigint, catalog_xmin::text::bigint)
				< txid_snapshot_xmin(txid_current_snapshot()))`)
		if err == nil && late != "" {
			err = errors.New(late)
		}
		return err
	})
}

// waitReplayed waits until every standby that is connected has replayed what the primary has written.
func waitReplayed(b *harness.B, primary *cluster.Server) {
	cluster.Eventually(b, cluster.DefaultDeadline, "the standbys to catch up", func() bool {
		return cluster.QueryOne[bool](b, primary, `SELECT coalesce(bool_and(replay_lsn >= pg_current_wal_lsn()), true)
			FROM pg_stat_replication WHERE state = 'streaming'`)
	})
}

// positions are those of a slot.
type positions struct{ restart, confirmed cluster.LSN }

// slotPositions returns those of the slots that can be used.
func slotPositions(ctx context.Context, conn *pgx.Conn, major int) (map[string]positions, error) {
	sql := `SELECT slot_name, restart_lsn, confirmed_flush_lsn FROM pg_replication_slots
		WHERE slot_type = 'logical' AND NOT temporary AND plugin = 'pgoutput'
		AND restart_lsn IS NOT NULL AND confirmed_flush_lsn IS NOT NULL AND slot_name <> 'old'`
	if major >= firstFailover {
		sql += " AND failover"
	}
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]positions{}
	for rows.Next() {
		var name string
		var p positions
		if err := rows.Scan(&name, &p.restart, &p.confirmed); err != nil {
			return nil, err
		}
		all[name] = p
	}
	return all, rows.Err()
}

// behind says what the copies lack, nil if nothing. Where core has decoded from a slot itself, its restart_lsn may stay
// behind.
func behind(there, here map[string]positions, restart bool) error {
	if len(there) == 0 {
		return errors.New("there is no slot")
	}
	for name, want := range there {
		have, ok := here[name]
		switch {
		case !ok:
			return fmt.Errorf("%d copies for %d slots, none of %s", len(here), len(there), name)
		case have.confirmed < want.confirmed, restart && have.restart < want.restart:
			return fmt.Errorf("the copy of %s is at %v, %v and not at %v, %v", name, have.restart, have.confirmed, want.restart, want.confirmed)
		}
	}
	return nil
}

// positionsOnDisk reads what a server would find after a crash, as far as that can be seen: the files that hold
// slots. What was written to one and not flushed yet looks the same.
func positionsOnDisk(s *cluster.Server) (map[string]positions, error) {
	dir := filepath.Join(s.DataDir(), "pg_replslot")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := map[string]positions{}
	for _, entry := range entries {
		state, err := os.ReadFile(filepath.Join(dir, entry.Name(), "state"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		// ReplicationSlotOnDisk: a header of 16 bytes, a name of 64, database, persistency and the two xmins; then
		// restart_lsn, eight bytes about invalidation, and confirmed_flush_lsn.
		if err == nil && len(state) < 120 {
			err = fmt.Errorf("%s has %d bytes", entry.Name(), len(state))
		}
		if err != nil {
			return nil, err
		}
		all[entry.Name()] = positions{
			cluster.LSN(binary.NativeEndian.Uint64(state[96:])), cluster.LSN(binary.NativeEndian.Uint64(state[112:]))}
	}
	return all, nil
}

// extraVersion is the version of a package that regress/servers/extras.sh has put beside the server, empty if it has not.
func extraVersion(s *cluster.Server, name string) string {
	if s.Install().Root == "" {
		out, _ := output("dpkg-query", "-W", "-f=${Version}", name)
		return out
	}
	list, _ := os.ReadFile(filepath.Join(s.Install().Root, ".replsync-extras"))
	for line := range strings.Lines(string(list)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == name {
			return fields[1]
		}
	}
	return ""
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	return strings.TrimSpace(string(out)), err
}
