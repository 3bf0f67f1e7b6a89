package primary

import (
	"fmt"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/remote"
)

const oldestMajor = 15

func errTooOld(major int) error {
	return &host.Error{Message: host.Message{
		SQLState: "0A000",
		Text:     fmt.Sprintf("cannot synchronize replication slots from a server of version %d", major),
		Hint:     fmt.Sprintf("replsync works with PostgreSQL %d and later.", oldestMajor),
	}}
}

// GrantHint names the statements that give the connection's role the right to read the files it needs.
func (c *Client) GrantHint() string {
	role := remote.QuoteIdentifier(c.user)
	return fmt.Sprintf("In database %s of the primary, run CREATE EXTENSION replsync if it is not there, then "+
		"GRANT USAGE ON SCHEMA replsync TO %s; "+
		"GRANT EXECUTE ON ROUTINE replsync.logical_snapshot(pg_lsn), replsync.logical_mappings(oid, pg_lsn), "+
		"replsync.logical_slot_two_phase_at(name), replsync.logical_slots(boolean), "+
		"replsync.wait_for_slot_change(integer), replsync.keep_catalog_rows(name, xid) TO %s;",
		remote.QuoteIdentifier(c.database), role, role)
}
