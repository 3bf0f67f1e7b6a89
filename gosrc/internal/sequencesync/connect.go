package sequencesync

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/replsync/replsync/gosrc/internal/conninfo"
	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
)

// Publisher is the other side of a subscription, as [publisher.Client] reads it.
type Publisher interface {
	Mark(ctx context.Context) (publisher.Mark, error)
	Values(ctx context.Context, names []host.SequenceName) ([]publisher.Value, error)
	Select(ctx context.Context, publications []string, selection host.SequenceSelection,
		yield func([]host.SequenceName) error) error
	Confirmed(ctx context.Context, slot string) (host.LSN, error)
	User() string
	Close()
}

// Open makes the connection of a subscription. It does not connect yet.
type Open func(h host.Server, sub *host.Subscription, s *Settings) Publisher

const applicationName = "replsync sequences"

// Dial is an [Open] by the connection string of the subscription.
func Dial(h host.Server, sub *host.Subscription, s *Settings) Publisher {
	access := accessOf(sub, s)
	connect := func(ctx context.Context) (*pgx.Conn, error) {
		config, err := access.parse(ctx, h)
		if err != nil {
			return nil, connectError(err)
		}
		conn, err := config.Connect(ctx)
		if err != nil {
			return nil, connectError(err)
		}
		return conn, nil
	}
	return publisher.New(connect, publisher.Options{RemoteTimeout: s.RemoteTimeout, FirstTimeout: s.ConnectTimeout})
}

// access is all that a connection depends on.
type access struct {
	conninfo                string
	superuser, mustPassword bool
	settings                Settings
}

func accessOf(sub *host.Subscription, s *Settings) access {
	a := access{conninfo: sub.Conninfo, superuser: sub.SuperuserOwner, mustPassword: sub.MustUsePassword}
	a.settings = Settings{ConnectTimeout: s.ConnectTimeout, RemoteTimeout: s.RemoteTimeout, ClusterName: s.ClusterName}
	return a
}

func (a access) parse(ctx context.Context, h host.Server) (*conninfo.Config, error) {
	env, err := h.Environment(ctx)
	if err != nil {
		return nil, err
	}
	name := applicationName
	if a.settings.ClusterName != "" {
		name = a.settings.ClusterName + " " + name
	}
	return conninfo.Parse(a.conninfo, conninfo.Options{
		ApplicationName:  name,
		ConnectTimeout:   a.settings.ConnectTimeout,
		StatementTimeout: a.settings.RemoteTimeout,
		OldServer:        true,
		Env:              conninfo.NewEnvironment(env),
		Restricted:       !a.superuser,
		MustUsePassword:  a.mustPassword,
		Warn: func(text string) {
			_ = h.Log(ctx, host.Debug, host.Message{Text: "connection string of the subscription: " + text})
		},
	})
}

// passwordRequired is the SQLSTATE of core's own refusal, whose words are kept.
const passwordRequired = "2F003"

func connectError(err error) error {
	var failed *conninfo.Error
	if !errors.As(err, &failed) {
		return err
	}
	e := &host.Error{Err: err, Message: host.Message{
		SQLState: failed.Code, Text: failed.Message, Detail: failed.Detail, Hint: failed.Hint,
	}}
	if failed.Code != passwordRequired {
		e.Text = "could not connect to the publisher: " + e.Text
	}
	if failed.Code == "28000" && e.Hint == "" {
		e.Hint = "Sequences are read over an ordinary connection to the database, which an entry for \"replication\" in the publisher's pg_hba.conf does not cover."
	}
	return e
}
