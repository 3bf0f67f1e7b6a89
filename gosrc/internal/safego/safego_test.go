package safego_test

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/safego"
)

func outcome(f func() error) error {
	result := make(chan error)
	safego.Go(f, func(err error) { result <- err })
	return <-result
}

func TestGo(t *testing.T) {
	require.NoError(t, outcome(func() error { return nil }))
	require.Equal(t, io.EOF, outcome(func() error { return io.EOF }))

	err := outcome(func() error { panic("lost") })
	var p *safego.PanicError
	require.ErrorAs(t, err, &p)
	require.EqualError(t, err, "internal error: lost")
	require.Contains(t, string(p.Stack), "safego_test.go")

	err = outcome(func() error { var m map[string]int; m["a"] = 1; return nil })
	require.ErrorContains(t, err, "nil map")
	err = outcome(func() error { panic(io.EOF) })
	require.True(t, errors.Is(err, io.EOF))
}
