package publisher

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

// perUnion is how many sequences are read by one UNION ALL, whose planning takes more than its share of many.
const perUnion = 50

// Values reads sequences, in the order of the names.
func (c *Client) Values(ctx context.Context, names []host.SequenceName) ([]Value, error) {
	values := make([]Value, len(names))
	if !c.isDivided() {
		if err := c.first.read(ctx, names, values); err != nil {
			return nil, err
		}
		return values, nil
	}
	half := len(names) / 2
	second := make(chan error, 1)
	safego.Go(func() error { return c.second.read(ctx, names[half:], values[half:]) }, func(err error) { second <- err })
	err := safego.Do(func() error { return c.first.read(ctx, names[:half], values[:half]) })
	secondErr := <-second
	if err == nil && host.HasCode(secondErr, codeTooManyConnections) {
		c.alone = true
		clear(values[half:])
		secondErr = c.first.read(ctx, names[half:], values[half:])
	}
	if err == nil {
		err = secondErr
	}
	if err != nil {
		return nil, err
	}
	return values, nil
}

// read fills in the values of sequences.
func (r *reader) read(ctx context.Context, names []host.SequenceName, values []Value) error {
	r.reads += len(names)
	r.round += len(names)
	b := &batch{names: names, values: values}
	which, err := r.readKnown(ctx, b)
	if err == nil {
		err = r.isolate(ctx, b, which, r.readCatalog)
	}
	for rest := b.uncalled; err == nil && len(rest) > 0; {
		n := min(perUnion, len(rest))
		err = r.isolate(ctx, b, rest[:n], r.readPositions)
		rest = rest[n:]
	}
	if err != nil {
		return err
	}
	for _, n := range b.uncalled {
		if values[n].Problem != None {
			// The catalogs have more to say about that.
			r.client.known.forget(names[n])
		}
	}
	return nil
}

// batch is what is read at a time. A slice of numbers says which of the names are meant.
type batch struct {
	names    []host.SequenceName
	values   []Value
	uncalled []int // of which the catalog query of an old server does not know the position
}

func (b *batch) columns(which []int) (schemas, names []string) {
	schemas, names = make([]string, len(which)), make([]string, len(which))
	for i, n := range which {
		schemas[i], names[i] = b.names[n].Schema, b.names[n].Name
	}
	return schemas, names
}

// about is a statement about some sequences of a batch.
type about func(ctx context.Context, conn *pgx.Conn, b *batch, which []int) error

// isolate runs a statement. Where one sequence can have made it fail, that one is found, by the locks or else by halves, and the
// others are read without it.
func (r *reader) isolate(ctx context.Context, b *batch, which []int, f about) error {
	if len(which) == 0 {
		return nil
	}
	var refused *pgconn.PgError
	err := r.do(ctx, "read the sequences", func(ctx context.Context, conn *pgx.Conn) error {
		err := f(ctx, conn, b, which)
		refused = ofOne(err)
		return err
	})
	switch {
	case err == nil:
		return nil
	case refused == nil:
		return err
	case len(which) == 1:
		b.values[which[0]] = refusedValue(b.values[which[0]], refused)
		return nil
	}
	if refused.Code == codeLockTimeout {
		free, err := r.leaveLocked(ctx, b, which)
		if err != nil {
			return err
		}
		if len(free) < len(which) {
			return r.isolate(ctx, b, free, f)
		}
	}
	half := len(which) / 2
	if err := r.isolate(ctx, b, which[:half], f); err != nil {
		return err
	}
	return r.isolate(ctx, b, which[half:], f)
}

func refusedValue(v Value, refused *pgconn.PgError) Value {
	v.Problem, v.Detail = Unreadable, refused.Message
	switch refused.Code {
	case codeNoTable, codeNoSchema:
		v.Problem = Missing
	case codeNoPrivilege:
		v.Problem = NoRight
	case codeNotASequence:
		v.Problem = NotASequence
	case codeLockTimeout:
		v.Problem = Locked
	}
	return v
}

// leaveLocked marks the sequences that are locked, and returns the others.
func (r *reader) leaveLocked(ctx context.Context, b *batch, which []int) ([]int, error) {
	locked := make(map[int]bool)
	err := r.do(ctx, "read the locks", func(ctx context.Context, conn *pgx.Conn) error {
		schemas, names := b.columns(which)
		rows, err := query(ctx, conn, lockedSQL(r.major), schemas, names)
		if err != nil {
			return err
		}
		var ord int
		_, err = pgx.ForEachRow(rows, []any{&ord}, func() error {
			locked[which[ord-1]] = true
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	free := make([]int, 0, len(which))
	for _, n := range which {
		if locked[n] {
			b.values[n].Problem = Locked
		} else {
			free = append(free, n)
		}
	}
	return free, nil
}

// readCatalog reads definitions, and the positions too where a function tells them.
func (r *reader) readCatalog(ctx context.Context, conn *pgx.Conn, b *batch, which []int) error {
	for _, n := range which {
		b.values[n] = Value{Problem: Missing}
		r.client.known.forget(b.names[n])
	}
	schemas, names := b.columns(which)
	rows, err := query(ctx, conn, valuesSQL(r.major), schemas, names)
	if err != nil {
		return err
	}
	var uncalled []int
	var row catalogRow
	_, err = pgx.ForEachRow(rows, row.columns(), func() error {
		n := which[row.ord-1]
		b.values[n] = row.value(r.major)
		r.client.known.put(b.names[n], uint32(row.oid), &b.values[n])
		if b.values[n].Problem == None && row.last == nil {
			uncalled = append(uncalled, n)
		}
		return nil
	})
	if err == nil {
		b.uncalled = append(b.uncalled, uncalled...)
	}
	return err
}

// readPositions reads sequences as tables.
func (r *reader) readPositions(ctx context.Context, conn *pgx.Conn, b *batch, which []int) error {
	rows, err := query(ctx, conn, positionsSQL(b.names, which))
	if err != nil {
		return err
	}
	var n int
	var p host.SequencePosition
	_, err = pgx.ForEachRow(rows, []any{&n, &p.LastValue, &p.IsCalled}, func() error {
		b.values[n].Position = p
		return nil
	})
	return err
}

// catalogRow is a row of valuesSQL.
type catalogRow struct {
	ord                          int
	oid                          int64
	kind                         string
	maySelect, maySchema, noData *bool
	typ, start, inc, least, most *int64
	cycle                        *bool
	last                         *int64
	called                       *bool
}

func (r *catalogRow) columns() []any {
	return []any{
		&r.ord, &r.oid, &r.kind, &r.maySelect, &r.maySchema, &r.noData, &r.typ, &r.start, &r.inc, &r.least, &r.most, &r.cycle,
		&r.last, &r.called,
	}
}

// value finds the one problem of a row. What is gone since the statement began is NULL.
func (r *catalogRow) value(major int) Value {
	if r.kind != "S" {
		return Value{Problem: NotASequence}
	}
	if r.typ == nil || r.maySelect == nil || r.cycle == nil {
		return Value{Problem: Missing}
	}
	v := Value{Definition: host.SequenceDefinition{
		Type: host.OID(*r.typ), Start: *r.start, Increment: *r.inc, Min: *r.least, Max: *r.most, Cycle: *r.cycle,
	}}
	switch {
	case !*r.maySelect:
		v.Problem = NoRight
	case isTrue(r.noData):
		v.Problem = Unlogged
	case r.last != nil:
		v.Position = host.SequencePosition{LastValue: *r.last, IsCalled: isTrue(r.called)}
	case major >= firstSequenceData:
		v.Problem = Missing
	case !isTrue(r.maySchema):
		v.Problem = NoSchemaRight
	}
	return v
}

func isTrue(b *bool) bool { return b != nil && *b }
