package primary

import (
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// KeepRows has the physical slot keep catalog rows from xid on, as far as logical slots of the primary keep them still. Feedback
// can only ask for less than before. The next Read shows from where on it keeps them. See State.KeepsRows.
func (c *Client) KeepRows(ctx context.Context, physicalSlot string, xid host.XID) error {
	return c.do(ctx, "have the physical slot keep catalog rows", func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, keepRowsSQL, physicalSlot, strconv.FormatUint(uint64(xid), 10))
		return err
	})
}
