package publisher

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/remote"
)

// known has the oids under which sequences were found. To read by oid takes the publisher half the time that looking their
// names up does. An oid is a guess, which the statement checks: what is not there under its name is looked up. Names are
// kept as hashes, since 100 000 of them would be most of the worker's memory; two of the same hash are looked up each time.
type known struct {
	seed maphash.Seed
	oids map[uint64]uint32
}

func newKnown() known {
	return known{maphash.MakeSeed(), make(map[uint64]uint32)}
}

func (k *known) find(n host.SequenceName) uint32 { return k.oids[maphash.Comparable(k.seed, n)] }

// put remembers an oid; 0 forgets it.
func (k *known) put(n host.SequenceName, oid uint32) {
	key := maphash.Comparable(k.seed, n)
	if oid == 0 {
		delete(k.oids, key)
	} else {
		k.oids[key] = oid
	}
}

// trim forgets all once most of it is about sequences that are not read any more.
func (k *known) trim(read int) {
	if len(k.oids) > 2*read+1000 {
		clear(k.oids)
	}
}

// readKnown reads the sequences whose oids are known, and returns those that are still to be read.
func (c *Client) readKnown(ctx context.Context, b *batch) ([]int, error) {
	all, oids := make([]int, len(b.names)), make([]uint32, len(b.names))
	some := false
	for i, n := range b.names {
		all[i], oids[i] = i, c.known.find(n)
		some = some || oids[i] != 0
	}
	// A standby has to be asked more than that.
	if !some || c.mark.InRecovery {
		return all, nil
	}
	var refused *pgconn.PgError
	err := c.do(ctx, "read the sequences", func(ctx context.Context, conn *pgx.Conn) error {
		err := c.readOIDs(ctx, conn, b, oids)
		refused = ofOne(err)
		return err
	})
	switch {
	case err == nil:
		return slices.DeleteFunc(all, func(i int) bool { return b.values[i].Definition.Type != 0 }), nil
	case refused == nil:
		return nil, err
	}
	// One of them may be gone, or locked: all are looked up, which finds out.
	clear(b.values)
	if refused.Code == codeLockTimeout {
		return c.leaveLocked(ctx, b, all)
	}
	return all, nil
}

// readOIDs fills in the values of the sequences that have their oids and names.
func (c *Client) readOIDs(ctx context.Context, conn *pgx.Conn, b *batch, oids []uint32) error {
	// The plan suits any oids, so that the session keeps it.
	rows, err := conn.Query(ctx, knownSQL(c.major), pgx.QueryExecModeCacheStatement, oids)
	if err != nil {
		return err
	}
	var ord int
	var name string
	var readable, isNull bool
	var typ int64
	var v Value
	_, err = pgx.ForEachRow(rows, []any{
		&ord, &name, &readable, &typ, &v.Definition.Start, &v.Definition.Increment, &v.Definition.Min, &v.Definition.Max,
		&v.Definition.Cycle, &isNull, &v.Position.LastValue, &v.Position.IsCalled,
	}, func() error {
		if ord--; !isQuoted(name, b.names[ord]) {
			return nil
		}
		v.Definition.Type = host.OID(typ)
		switch {
		case !readable:
			b.values[ord] = Value{Definition: v.Definition, Problem: NoRight}
		case !isNull:
			b.values[ord] = v
		}
		return nil
	})
	return err
}

// isQuoted tells whether text is a name as the server quotes it where that is needed.
func isQuoted(text string, n host.SequenceName) bool {
	rest, ok := cutIdentifier(text, n.Schema)
	if !ok || rest == "" || rest[0] != '.' {
		return false
	}
	rest, ok = cutIdentifier(rest[1:], n.Name)
	return ok && rest == ""
}

func cutIdentifier(text, name string) (rest string, ok bool) {
	if strings.HasPrefix(text, `"`) {
		return strings.CutPrefix(text, remote.QuoteIdentifier(name))
	}
	return strings.CutPrefix(text, name)
}
