package cluster

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Database is a database of a server. Each call uses a connection of its own,
// so nothing is left over from before a restart or a promotion; where a session
// matters, use Connect.
type Database struct {
	server *Server
	name   string
	params string
}

// Queryer is what QueryOne and the like query: a *Server or a *Database.
type Queryer interface {
	database() *Database
}

func (d *Database) database() *Database { return d }

// DB returns another database of the server.
func (s *Server) DB(name string) *Database {
	return &Database{server: s, name: name}
}

// With returns the same database with connection parameters added, as in
// With("user=bob application_name=x").
func (d *Database) With(params string) *Database {
	return &Database{server: d.server, name: d.name, params: d.params + " " + params}
}

// ConnString is a connection string for libpq and pgx.
func (d *Database) ConnString() string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable connect_timeout=10 dbname=%s%s",
		d.server.Port, QuoteConninfo(d.name), d.params)
}

// QuoteConninfo quotes a value for a connection string.
func QuoteConninfo(value string) string {
	quoted := []byte{'\''}
	for i := range len(value) {
		if value[i] == '\'' || value[i] == '\\' {
			quoted = append(quoted, '\\')
		}
		quoted = append(quoted, value[i])
	}
	return string(append(quoted, '\''))
}

// TryConnect connects to the database.
func (d *Database) TryConnect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, d.ConnString())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.server.Name, err)
	}
	return conn, nil
}

// Connect connects to the database until the end of the test.
func (d *Database) Connect(t T) *pgx.Conn {
	t.Helper()
	ctx, cancel := within()
	defer cancel()
	conn, err := d.TryConnect(ctx)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := within()
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// TryExec executes SQL: one statement with arguments, or several without.
func (d *Database) TryExec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	conn, err := d.TryConnect(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer conn.Close(ctx)
	return conn.Exec(ctx, sql, args...)
}

// Exec executes SQL: one statement with arguments, or several without.
func (d *Database) Exec(t T, sql string, args ...any) pgconn.CommandTag {
	t.Helper()
	ctx, cancel := within()
	defer cancel()
	tag, err := d.TryExec(ctx, sql, args...)
	if err != nil {
		t.Fatalf("%s: %s: %v", d.server.Name, sql, describe(err))
	}
	return tag
}

// TryQueryOne runs a query and returns the first column of its only row. A NULL
// needs a pointer or another type that can hold it.
func TryQueryOne[V any](q Queryer, sql string, args ...any) (V, error) {
	return collect(q, pgx.CollectExactlyOneRow[V], sql, args...)
}

// QueryOne runs a query and returns the first column of its only row. A NULL
// needs a pointer or another type that can hold it.
func QueryOne[V any](t T, q Queryer, sql string, args ...any) V {
	t.Helper()
	value, err := TryQueryOne[V](q, sql, args...)
	if err != nil {
		t.Fatalf("%s: %s: %v", q.database().server.Name, sql, describe(err))
	}
	return value
}

// TryQuery runs a query and returns the first column of its rows.
func TryQuery[V any](q Queryer, sql string, args ...any) ([]V, error) {
	return collect(q, pgx.CollectRows[V], sql, args...)
}

// Query runs a query and returns the first column of its rows.
func Query[V any](t T, q Queryer, sql string, args ...any) []V {
	t.Helper()
	values, err := TryQuery[V](q, sql, args...)
	if err != nil {
		t.Fatalf("%s: %s: %v", q.database().server.Name, sql, describe(err))
	}
	return values
}

func collect[V, R any](q Queryer, collector func(pgx.Rows, pgx.RowToFunc[V]) (R, error), sql string, args ...any) (R, error) {
	var none R
	ctx, cancel := within()
	defer cancel()
	conn, err := q.database().TryConnect(ctx)
	if err != nil {
		return none, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return none, err
	}
	return collector(rows, pgx.RowTo[V])
}

// TryRows runs a query and returns its rows by column name.
func (d *Database) TryRows(ctx context.Context, sql string, args ...any) ([]map[string]any, error) {
	conn, err := d.TryConnect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToMap)
}

// Rows runs a query and returns its rows by column name.
func (d *Database) Rows(t T, sql string, args ...any) []map[string]any {
	t.Helper()
	ctx, cancel := within()
	defer cancel()
	rows, err := d.TryRows(ctx, sql, args...)
	if err != nil {
		t.Fatalf("%s: %s: %v", d.server.Name, sql, describe(err))
	}
	return rows
}

// describe adds to a server's error what Error leaves out.
func describe(err error) error {
	pgErr, ok := AsPgError(err)
	if !ok {
		return err
	}
	text := err.Error()
	if pgErr.Detail != "" {
		text += "\nDETAIL: " + pgErr.Detail
	}
	if pgErr.Hint != "" {
		text += "\nHINT: " + pgErr.Hint
	}
	return fmt.Errorf("%s", text)
}
