package primary

import (
	"cmp"
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/logicalfiles"
	"github.com/replsync/replsync/gosrc/internal/remote"
)

// Snapshot is the outcome of reading one snapshot file.
type Snapshot struct {
	Content []byte // nil with Err nil: there is no such file
	Err     error
}

// Snapshots reads the snapshot files at positions, in one round trip. It fails as a whole only where the connection
// does; a file that the server cannot read is an error of its own.
func (c *Client) Snapshots(ctx context.Context, lsns []host.LSN) (map[host.LSN]Snapshot, error) {
	found, err := c.snapshots(ctx, lsns)
	if err == nil || remote.Refusal(err) == nil || ctx.Err() != nil {
		return found, err
	}
	found = make(map[host.LSN]Snapshot, len(lsns))
	for _, lsn := range lsns {
		one, err := c.snapshots(ctx, []host.LSN{lsn})
		switch {
		case err == nil:
			found[lsn] = one[lsn]
		case remote.Refusal(err) != nil && ctx.Err() == nil:
			found[lsn] = Snapshot{Err: err}
		default:
			return nil, err
		}
	}
	return found, nil
}

func (c *Client) snapshots(ctx context.Context, lsns []host.LSN) (map[host.LSN]Snapshot, error) {
	texts, names := make([]string, len(lsns)), make([]string, len(lsns))
	for i, lsn := range lsns {
		texts[i], names[i] = lsn.String(), logicalfiles.SnapshotName(lsn)
	}
	found := make(map[host.LSN]Snapshot, len(lsns))
	err := c.do(ctx, "read snapshot files", func(ctx context.Context, conn *pgx.Conn) error {
		sql, ok := snapshotsSQL[c.access.files]
		if !ok {
			return c.ErrNoAccess()
		}
		return eachFile(ctx, conn, sql, texts, names, func(key string, content []byte) error {
			lsn, err := host.ParseLSN(key)
			found[lsn] = Snapshot{Content: content}
			return err
		})
	})
	return found, err
}

// Mappings reads the mapping files that the sources need and hands each to file, which may see a file twice. An error
// of file ends it.
func (c *Client) Mappings(ctx context.Context, sources []Source, file func(name string, content []byte) error) error {
	if len(sources) == 0 {
		return nil
	}
	var refused error // by file: not an error of the connection
	err := c.mappings(ctx, sources, func(name string, content []byte) error {
		refused = file(name, content)
		return refused
	})
	return cmp.Or(refused, err)
}

func (c *Client) mappings(ctx context.Context, sources []Source, file func(name string, content []byte) error) error {
	if c.access.files == ByReadBinaryFile {
		return c.mappingsByName(ctx, sources, file)
	}
	databases, lsns := make([]string, len(sources)), make([]string, len(sources))
	for i, s := range sources {
		databases[i], lsns[i] = strconv.FormatUint(uint64(s.Database), 10), s.From.String()
	}
	return c.do(ctx, "read mapping files", func(ctx context.Context, conn *pgx.Conn) error {
		if c.access.files != ByExtension {
			return c.ErrNoAccess()
		}
		return eachFile(ctx, conn, mappingsSQL, databases, lsns, file)
	})
}

func (c *Client) mappingsByName(ctx context.Context, sources []Source, file func(string, []byte) error) error {
	return c.do(ctx, "read mapping files", func(ctx context.Context, conn *pgx.Conn) error {
		names, sizes, err := listMappings(ctx, conn, sources)
		if err != nil || len(names) == 0 {
			return err
		}
		return eachFile(ctx, conn, readMappingsSQL, names, sizes, file)
	})
}

func listMappings(ctx context.Context, conn *pgx.Conn, sources []Source) (names, sizes []string, err error) {
	rows, err := conn.Query(ctx, listMappingsSQL)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name, size string
		if err := rows.Scan(&name, &size); err != nil {
			return nil, nil, err
		}
		if m, err := logicalfiles.ParseMappingName(name); err == nil && needed(m, sources) {
			names, sizes = append(names, name), append(sizes, size)
		}
	}
	return names, sizes, rows.Err()
}

func needed(m logicalfiles.Mapping, sources []Source) bool {
	for _, s := range sources {
		if (m.Database == s.Database || m.Database == 0) && m.LSN >= s.From {
			return true
		}
	}
	return false
}

// eachFile runs a query with two arrays that returns names and contents. A NULL content is passed as nil.
func eachFile(ctx context.Context, conn *pgx.Conn, sql string, a, b []string, f func(string, []byte) error) error {
	rows, err := conn.Query(ctx, sql, a, b)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var content []byte
		if err := rows.Scan(&name, &content); err != nil {
			return err
		}
		if err := f(name, content); err != nil {
			return err
		}
	}
	return rows.Err()
}

// ErrNoAccess is what a role gets that can read the files in no way.
func (c *Client) ErrNoAccess() error {
	return &host.Error{Message: host.Message{
		SQLState: "42501",
		Text:     "permission denied to read the files of replication slots at the primary",
		Detail: "A copy of a logical slot needs the snapshot and mapping files of its position, which role " +
			remote.QuoteIdentifier(c.user) + " may read neither with the functions of replsync nor with pg_read_binary_file().",
		Hint: c.GrantHint(),
	}}
}
