package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// SlotOptions are the properties of a logical slot.
type SlotOptions struct {
	// Plugin is the output plugin, pgoutput by default.
	Plugin string
	// TwoPhase decodes prepared transactions at their prepare. It needs
	// PostgreSQL 14; on older versions it fails the test.
	TwoPhase bool
	// Failover marks the slot for synchronization. It needs PostgreSQL 17; on
	// older versions it fails the test.
	Failover bool
}

// CreateSlot makes a logical slot in the database.
func (d *Database) CreateSlot(t T, name string, o SlotOptions) {
	t.Helper()
	if o.Plugin == "" {
		o.Plugin = "pgoutput"
	}
	args := []any{name, o.Plugin, false}
	if d.server.Major >= 14 {
		args = append(args, o.TwoPhase)
	} else if o.TwoPhase {
		t.Fatalf("PostgreSQL %d does not decode at the prepare", d.server.Major)
	}
	if d.server.Major >= 17 {
		args = append(args, o.Failover)
	} else if o.Failover {
		t.Fatalf("PostgreSQL %d has no failover slots", d.server.Major)
	}
	var places []string
	for i := range args {
		places = append(places, fmt.Sprintf("$%d", i+1))
	}
	d.Exec(t, "select pg_create_logical_replication_slot("+strings.Join(places, ", ")+")", args...)
}

// SlotRow is a row of pg_replication_slots. The columns that a version does not
// have are at their zero values.
type SlotRow struct {
	SlotName          string
	Plugin            string
	Database          string
	Temporary         bool
	Active            bool
	Xmin              *int64
	CatalogXmin       *int64
	RestartLSN        *LSN
	ConfirmedFlushLSN *LSN
	WALStatus         string
	TwoPhase          bool
	// Conflicting is of 16 and later.
	Conflicting bool
	// InvalidationReason, Failover and Synced are of 17 and later.
	InvalidationReason string
	Failover           bool
	Synced             bool
}

// Slots returns the server's replication slots by name.
func (s *Server) Slots(t T) map[string]SlotRow {
	t.Helper()
	columns := []string{"slot_name", "coalesce(plugin, '')", "coalesce(database, '')", "temporary", "active",
		"xmin::text::int8", "catalog_xmin::text::int8", "restart_lsn", "confirmed_flush_lsn",
		"coalesce(wal_status, '')", "two_phase"}
	if s.Major >= 16 {
		columns = append(columns, "coalesce(conflicting, false)")
	}
	if s.Major >= 17 {
		columns = append(columns, "coalesce(invalidation_reason, '')", "failover", "synced")
	}
	conn := s.Connect(t)
	ctx, cancel := within()
	defer cancel()
	rows, err := conn.Query(ctx, "select "+strings.Join(columns, ", ")+" from pg_replication_slots")
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	defer conn.Close(ctx)
	defer rows.Close()
	slots := map[string]SlotRow{}
	for rows.Next() {
		var r SlotRow
		into := []any{&r.SlotName, &r.Plugin, &r.Database, &r.Temporary, &r.Active, &r.Xmin, &r.CatalogXmin,
			&r.RestartLSN, &r.ConfirmedFlushLSN, &r.WALStatus, &r.TwoPhase,
			&r.Conflicting, &r.InvalidationReason, &r.Failover, &r.Synced}
		if err := rows.Scan(slices.Clip(into[:len(columns)])...); err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		slots[r.SlotName] = r
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	return slots
}

// LogStandbySnapshot writes a record of the running transactions, from which
// decoding can start and by which slots advance. The server writes one by itself
// every 15 seconds when something happens. On 15 it takes a checkpoint.
func (s *Server) LogStandbySnapshot(t T) {
	t.Helper()
	if s.Major >= 16 {
		s.Exec(t, "select pg_log_standby_snapshot()")
		return
	}
	s.Exec(t, "checkpoint")
}
