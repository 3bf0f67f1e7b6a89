package slotsync

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/conninfo"
	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/host/hosttest"
)

func TestConnectError(t *testing.T) {
	for code, hint := range map[string]string{
		"3D000": "replsync.maintenance_database",
		"28000": `database "db", which an entry for "replication"`,
		"28P01": "from the password file",
	} {
		err := connectError(&conninfo.Error{Code: code, Message: "refused", Hint: "It came from the password file."}, "db")
		m := host.Describe(err)
		require.Equal(t, code, m.SQLState)
		require.Equal(t, "could not connect to the primary: refused", m.Text)
		require.Contains(t, m.Hint, hint)
	}
	other := errors.New("other")
	require.Equal(t, other, connectError(other, "db"))
}

func TestDialRefusesWhatItCannotRead(t *testing.T) {
	h := hosttest.New()
	h.Env = map[string]string{"USER": "postgres", "HOME": t.TempDir()}
	p, err := Dial(t.Context(), h, &Settings{Conninfo: "host=x pasword=secret"})
	require.NoError(t, err, "it does not connect yet")
	_, err = p.Read(t.Context(), "s")
	m := host.Describe(err)
	require.Equal(t, "42601", m.SQLState)
	require.NotContains(t, m.Text+m.Detail+m.Hint, "secret")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p, err = Dial(ctx, h, &Settings{Conninfo: "host=127.0.0.1"})
	require.NoError(t, err)
	_, err = p.Read(ctx, "s")
	require.ErrorIs(t, err, context.Canceled)
}
