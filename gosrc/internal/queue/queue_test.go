package queue_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/queue"
)

// serve answers every request with its own data, or with fail.
func serve(q *queue.Queue, wake <-chan struct{}, stop <-chan struct{}, fail error) {
	for {
		select {
		case <-stop:
			return
		case <-wake:
		}
		for r, ok := q.Next(); ok; r, ok = q.Next() {
			q.Answer(r.ID, r.Data, fail)
		}
	}
}

func newQueue() (q *queue.Queue, wake chan struct{}) {
	q = new(queue.Queue)
	wake = make(chan struct{}, 1)
	q.SetWake(func() {
		select {
		case wake <- struct{}{}:
		default: // a wake-up is pending already
		}
	})
	return q, wake
}

func TestCallReturnsTheAnswerToItsOwnRequest(t *testing.T) {
	q, wake := newQueue()
	stop := make(chan struct{})
	defer close(stop)
	go serve(q, wake, stop, nil)

	results := make(chan error, 100)
	for i := range 100 {
		go func() {
			b, err := q.Call(t.Context(), 1, []byte{byte(i)})
			if err == nil && b[0] != byte(i) {
				err = errors.New("answer to another request")
			}
			results <- err
		}()
	}
	for range 100 {
		require.NoError(t, <-results)
	}
}

func TestStartedRequestsKeepTheirOrder(t *testing.T) {
	q, wake := newQueue()
	started := q.Start(1, []byte("a"), []byte("b"), []byte("c"))
	require.Len(t, wake, 1)
	for _, want := range []string{"a", "b", "c"} {
		r, ok := q.Next()
		require.True(t, ok, "no answer need be taken before the next request is")
		require.Equal(t, want, string(r.Data))
		q.Answer(r.ID, r.Data, nil)
	}
	for i, want := range []string{"a", "b", "c"} {
		b, err := started[i].Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}

	// What is given up before its turn is not carried out.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range q.Start(1, []byte("d"), []byte("e")) {
		_, err := s.Wait(ctx)
		require.ErrorIs(t, err, context.Canceled)
	}
	_, ok := q.Next()
	require.False(t, ok)
}

func TestCallReturnsTheErrorOfTheServer(t *testing.T) {
	q, wake := newQueue()
	stop := make(chan struct{})
	defer close(stop)
	failure := errors.New("failure")
	go serve(q, wake, stop, failure)

	_, err := q.Call(t.Context(), 1, nil)
	assert.ErrorIs(t, err, failure)
}

func TestDoneContextWithdrawsAPendingRequest(t *testing.T) {
	q, wake := newQueue()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := q.Call(ctx, 1, nil)
		done <- err
	}()
	<-wake
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	_, ok := q.Next()
	assert.False(t, ok, "the main thread must not see a request that nobody waits for")
}

func TestAnswerToAnAbandonedRequestIsDropped(t *testing.T) {
	q, wake := newQueue()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := q.Call(ctx, 1, nil)
		done <- err
	}()
	<-wake
	r, ok := q.Next()
	require.True(t, ok)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	q.Answer(r.ID, nil, nil) // must not block or panic
}

func TestCancelReachesTheWork(t *testing.T) {
	q, _ := newQueue()
	q.Cancel() // nobody to cancel: nothing happens
	canceled := false
	q.OnCancel(func() { canceled = true })
	q.Cancel()
	assert.True(t, canceled)
}
