package primary

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Inspection is what a check before a failover looks at besides what a pass reads.
type Inspection struct {
	*State
	Role     string
	Active   bool     // the physical slot is in use
	Lost     bool     // the physical slot is invalidated
	HoldBack string   // the list of physical slots that logical walsenders wait for
	FlushLSN host.LSN // 0 in recovery
}

// HoldBackParameter names the parameter that makes logical walsenders wait for standbys.
func HoldBackParameter(major int) string {
	if major >= firstHoldBack {
		return "synchronized_standby_slots"
	}
	return "replsync.synchronized_standby_slots"
}

const firstHoldBack = 17

// Inspect shows the primary to a check.
func (c *Client) Inspect(ctx context.Context, physicalSlot string) (*Inspection, error) {
	state, err := c.Read(ctx, physicalSlot)
	if err != nil {
		return nil, err
	}
	found := &Inspection{State: state, Role: c.user}
	err = c.do(ctx, "look at the server", func(ctx context.Context, conn *pgx.Conn) error {
		var active, lost string
		var holdBack, flushed *string
		err := conn.QueryRow(ctx, inspectSQL, physicalSlot, HoldBackParameter(c.major)).
			Scan(&active, &lost, &holdBack, &flushed)
		if err != nil {
			return err
		}
		var p parser
		found.Active, found.Lost = p.bool(active), p.bool(lost)
		found.HoldBack, found.FlushLSN = text(holdBack), p.lsn(flushed)
		return p.err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
