package remote

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
)

func TestDescribe(t *testing.T) {
	ctx := context.Background()
	s := New(nil, Server{At: "at the primary", Rights: func() string { return "Grant it." }})
	described := func(err error) host.Message {
		return host.Describe(s.describe(ctx, 2*time.Second, "read", fmt.Errorf("wrapped: %w", err)))
	}
	require.Equal(t, host.Message{
		SQLState: "42P01", Text: "could not read at the primary: no such table", Detail: "A detail.", Hint: "A hint.",
	}, described(&pgconn.PgError{Code: "42P01", Message: "no such table", Detail: "A detail.", Hint: "A hint."}))
	require.Equal(t, "Grant it.", described(&pgconn.PgError{Code: "42501"}).Hint)
	require.Equal(t, "A hint.", described(&pgconn.PgError{Code: "42501", Hint: "A hint."}).Hint)
	require.Contains(t, described(&pgconn.PgError{Code: "57014"}).Hint, "replsync.remote_timeout")
	late := described(context.DeadlineExceeded)
	require.Equal(t, "08006", late.SQLState)
	require.Equal(t, "There was no answer within 2s.", late.Detail)
	require.Contains(t, described(errors.New("unexpected EOF")).Detail, "The connection was lost: ")

	known := host.Errorf("55000", "known")
	require.ErrorIs(t, s.describe(ctx, 0, "read", known), known)
	cause := errors.New("cause")
	ended, end := context.WithCancelCause(ctx)
	end(cause)
	require.Equal(t, cause, s.describe(ended, 0, "read", context.Canceled))

	s = New(nil, Server{At: "of the publisher"})
	require.Empty(t, described(&pgconn.PgError{Code: "42501"}).Hint)
}

func TestMajorVersion(t *testing.T) {
	for version, want := range map[string]int{"15.20 (Debian 15.20-1)": 15, "19rc1": 19, "9.6.24": 9} {
		major, err := parseMajor(version)
		require.NoError(t, err)
		require.Equal(t, want, major)
	}
	_, err := parseMajor("devel")
	require.Error(t, err)
}
