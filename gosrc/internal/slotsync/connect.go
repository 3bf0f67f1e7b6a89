package slotsync

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/conninfo"
	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/logicalfiles"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

const applicationName = "replsync slots"

// Open makes the connection to the primary that the settings name. It does not connect yet.
type Open func(ctx context.Context, h host.Host, s *Settings) (Primary, error)

// NewWorker makes the worker of a server whose data directory is dataDir ("." inside a backend).
func NewWorker(h host.Host, dataDir string) (*Worker, error) {
	files, err := logicalfiles.Open(dataDir)
	if err != nil {
		return nil, err
	}
	return New(h, files, Dial), nil
}

// Dial is an [Open] by the connection string of the settings. The string is read again for each connection: it may name
// files that have changed.
func Dial(_ context.Context, h host.Host, s *Settings) (Primary, error) {
	connect := func(ctx context.Context) (*pgx.Conn, error) {
		config, err := readConninfo(ctx, h, s)
		if err != nil {
			return nil, connectError(err, "")
		}
		conn, err := config.Connect(ctx)
		if err != nil {
			return nil, connectError(err, config.Database())
		}
		return conn, nil
	}
	return primary.New(connect, primary.Options{RemoteTimeout: s.RemoteTimeout}), nil
}

func readConninfo(ctx context.Context, h host.Host, s *Settings) (*conninfo.Config, error) {
	env, err := h.Environment(ctx)
	if err != nil {
		return nil, err
	}
	name := applicationName
	if s.ClusterName != "" {
		name = s.ClusterName + " " + name
	}
	return conninfo.Parse(s.Conninfo, conninfo.Options{
		DefaultDatabase:  s.MaintenanceDatabase,
		ApplicationName:  name,
		ConnectTimeout:   s.ConnectTimeout,
		StatementTimeout: s.RemoteTimeout,
		Env:              conninfo.NewEnvironment(env),
		Warn: func(text string) {
			_ = h.Log(ctx, host.Debug, host.Message{Text: "primary_conninfo: " + text})
		},
	})
}

// connectError says what a failed connection means for this worker, which, unlike the walreceiver, connects to a database.
func connectError(err error, database string) error {
	var failed *conninfo.Error
	if !errors.As(err, &failed) {
		return err
	}
	e := &host.Error{Err: err, Message: host.Message{
		SQLState: failed.Code,
		Text:     "could not connect to the primary: " + failed.Message,
		Detail:   failed.Detail,
		Hint:     failed.Hint,
	}}
	switch failed.Code {
	case "3D000":
		e.Hint = fmt.Sprintf("The connection string names no other database than \"%s\": "+
			"set replsync.maintenance_database, or dbname in replsync.primary_conninfo, to one that exists there.", database)
	case "28000":
		e.Hint = fmt.Sprintf("The worker connects to database \"%s\", which an entry for \"replication\" in the primary's "+
			"pg_hba.conf does not cover.", database)
	}
	return e
}

// connect sees to it that there is a connection for these settings. What refuses the pass anyway is left to it.
func (w *Worker) connect(p *pass, s *Settings, r host.Recovery) error {
	if w.primary != nil && w.settings.sameConnection(s) {
		return nil
	}
	w.disconnect()
	if refuseHere(s, r) != nil {
		return nil
	}
	p.progress("connecting", 0, 0)
	primary, err := w.open(p.ctx, w.host, s)
	if err != nil {
		return err
	}
	w.primary, w.settings = primary, s
	return nil
}

func (w *Worker) disconnect() {
	if w.primary != nil {
		w.primary.Close()
		w.primary = nil
	}
	if w.upstream != nil {
		w.upstream.Close()
		w.upstream = nil
	}
}
