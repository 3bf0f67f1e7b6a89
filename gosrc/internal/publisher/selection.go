package publisher

import (
	"context"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/wildcard"
)

// perYield is how many names are handed on at a time.
const perYield = 1000

// Select lists the sequences that belong to a selection, ordered by name, and hands them on in parts that are not used again. What
// it finds of them is known from then on.
func (c *Client) Select(ctx context.Context, publications []string, selection host.SequenceSelection,
	yield func([]host.SequenceName) error,
) error {
	const what = "list the sequences"
	err := c.first.do(ctx, what, func(ctx context.Context, conn *pgx.Conn) error { return c.checkPublications(ctx, conn, publications) })
	if err != nil {
		return err
	}
	if _, err := c.Mark(ctx); err != nil {
		return err
	}
	// The list takes to read all of pg_class anyway.
	if err := c.readCatalogs(ctx, math.MaxInt); err != nil {
		return err
	}
	return c.first.once(ctx, c.opts.RemoteTimeout, what, func(ctx context.Context, conn *pgx.Conn) error {
		return c.list(ctx, conn, publications, selection, yield)
	})
}

func (c *Client) checkPublications(ctx context.Context, conn *pgx.Conn, publications []string) error {
	rows, err := query(ctx, conn, noPublicationSQL, publications)
	if err != nil {
		return err
	}
	var missing string
	tag, err := pgx.ForEachRow(rows, []any{&missing}, func() error { return nil })
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	e := host.Errorf("42704", "publication \"%s\" does not exist on the publisher", missing)
	e.Hint = "Create the publication there, or take it from the subscription with ALTER SUBSCRIPTION ... DROP PUBLICATION."
	return e
}

func (c *Client) list(ctx context.Context, conn *pgx.Conn, publications []string, selection host.SequenceSelection,
	yield func([]host.SequenceName) error,
) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, plannerSQL); err != nil {
		return err
	}
	every := selection.All || len(selection.Include) > 0
	rows, err := query(ctx, conn, sequencesSQL, publications, every)
	if err != nil {
		return err
	}
	part := make([]host.SequenceName, 0, perYield)
	var name host.SequenceName
	var schema string
	var feeds bool
	var oid, typ int64
	found := Value{}
	if c.first.major < firstSequenceData {
		// A position that may not be read is an error there: whether it may is still to be asked.
		found.Problem = NoRight
	}
	d := &found.Definition
	_, err = pgx.ForEachRow(rows, []any{
		&schema, &name.Name, &feeds, &oid, &typ, &d.Start, &d.Increment, &d.Min, &d.Max, &d.Cycle,
	}, func() error {
		if schema != name.Schema {
			name.Schema = schema // which is then shared by all names in it
		}
		if !wanted(selection, name, feeds) {
			return nil
		}
		d.Type = host.OID(typ)
		c.known.put(name, uint32(oid), &found)
		if part = append(part, name); len(part) < perYield {
			return nil
		}
		err := yield(part)
		part = part[:0]
		return err
	})
	if err == nil && len(part) > 0 {
		err = yield(part)
	}
	if err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// wanted applies a selection: include adds to it, exclude wins.
func wanted(s host.SequenceSelection, name host.SequenceName, feeds bool) bool {
	full := name.Schema + "." + name.Name
	if wildcard.MatchAny(s.Exclude, full) {
		return false
	}
	return s.All || feeds || wildcard.MatchAny(s.Include, full)
}
