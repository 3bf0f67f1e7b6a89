package cluster

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// SubscriptionOptions are the properties of a subscription.
type SubscriptionOptions struct {
	// Publications are "p" by default.
	Publications []string
	// Conninfo is how the subscription connects, by default as the superuser.
	Conninfo string
	// With are further options, as in "copy_data = false".
	With []string
}

// Subscribe makes a subscription of the database to publications of another
// one. Its slot is made beforehand: a server that subscribes to itself would
// else wait for itself.
func (d *Database) Subscribe(t T, name string, publisher *Database, o SubscriptionOptions) {
	t.Helper()
	if len(o.Publications) == 0 {
		o.Publications = []string{"p"}
	}
	if o.Conninfo == "" {
		o.Conninfo = publisher.ConnString()
	}
	for i, publication := range o.Publications {
		o.Publications[i] = pgx.Identifier{publication}.Sanitize()
	}
	slot := space.name("subscription")
	publisher.CreateSlot(t, slot, SlotOptions{})
	with := append([]string{"create_slot = false", "slot_name = " + slot}, o.With...)
	d.Exec(t, fmt.Sprintf("create subscription %s connection %s publication %s with (%s)", pgx.Identifier{name}.Sanitize(),
		QuoteLiteral(o.Conninfo), strings.Join(o.Publications, ", "), strings.Join(with, ", ")))
}

// WaitSubscribed waits until a subscription of the database has copied its
// tables, and has applied what its publisher has written by now.
func (d *Database) WaitSubscribed(t T, name string, publisher *Database) {
	t.Helper()
	slot := QueryOne[string](t, d, `select subslotname from pg_subscription s join pg_database d on d.oid = subdbid
		where subname = $1 and datname = current_database()`, name)
	target := QueryOne[LSN](t, publisher, "select pg_current_wal_lsn()")
	Eventually(t, DefaultDeadline, fmt.Sprintf("subscription %s to apply up to %v", name, target), func() error {
		copying, err := TryQuery[string](d, `select srrelid::regclass || ' is in state ' || srsubstate::text
			from pg_subscription_rel r join pg_subscription s on s.oid = srsubid
			where subname = $1 and srsubstate <> 'r'`, name)
		if err != nil || len(copying) > 0 {
			return errors.Join(err, errors.New(strings.Join(copying, ", ")))
		}
		applied, err := TryQueryOne[LSN](publisher, `select coalesce((select replay_lsn from pg_stat_replication r
			join pg_replication_slots s on s.active_pid = r.pid where s.slot_name = $1), '0/0')`, slot)
		if err == nil && applied < target {
			err = fmt.Errorf("it has applied up to %v", applied)
		}
		return err
	})
}
