// Package queue carries requests from goroutines to the server's main thread and the answers back.
//
// Goroutines wait in [Queue.Call]; the main thread polls [Queue.Next] after it was woken and delivers
// with [Queue.Answer]. Neither Next nor Answer ever waits.
package queue

import (
	"context"
	"sync"
)

// Request is one thing asked of the main thread.
type Request struct {
	ID   uint64
	Kind int32
	Data []byte
}

type answer struct {
	data []byte
	err  error
}

// Queue is safe for concurrent use. The zero value needs SetWake before the first Call.
type Queue struct {
	mu      sync.Mutex
	lastID  uint64
	pending []Request
	waiting map[uint64]chan answer
	wake    func()
	cancel  func()
}

// SetWake sets the function that tells the main thread of a new request. It is called without locks held.
func (q *Queue) SetWake(wake func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wake = wake
}

// Call puts a request into the queue and waits for its answer. When ctx is done first, the request is
// withdrawn, or, if the main thread has taken it already, its answer is dropped.
func (q *Queue) Call(ctx context.Context, kind int32, data []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return q.Start(kind, data)[0].Wait(ctx)
}

// Started is a request whose answer is yet to be taken.
type Started struct {
	queue *Queue
	id    uint64
	done  chan answer
}

// Start puts requests into the queue, to be carried out one after the other: the main thread need not wait
// for an answer to be taken before it goes on. An answer that nobody wants need not be taken.
func (q *Queue) Start(kind int32, data ...[]byte) []Started {
	started := make([]Started, len(data))
	q.mu.Lock()
	if q.waiting == nil {
		q.waiting = make(map[uint64]chan answer)
	}
	for i := range data {
		q.lastID++
		started[i] = Started{q, q.lastID, make(chan answer, 1)}
		q.waiting[q.lastID] = started[i].done
		q.pending = append(q.pending, Request{ID: q.lastID, Kind: kind, Data: data[i]})
	}
	wake := q.wake
	q.mu.Unlock()
	wake()
	return started
}

// Wait takes the answer. When ctx is done first, it does what Call does.
func (s Started) Wait(ctx context.Context) ([]byte, error) {
	select {
	case a := <-s.done:
		return a.data, a.err
	case <-ctx.Done():
		s.queue.withdraw(s.id)
		return nil, context.Cause(ctx)
	}
}

func (q *Queue) withdraw(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, id)
	for i, r := range q.pending {
		if r.ID == id {
			q.pending = append(q.pending[:i], q.pending[i+1:]...)
			return
		}
	}
}

// Next takes the oldest request.
func (q *Queue) Next() (Request, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) == 0 {
		return Request{}, false
	}
	r := q.pending[0]
	q.pending = q.pending[1:]
	return r, true
}

// Answer delivers to the caller that waits for id, if it still does.
func (q *Queue) Answer(id uint64, data []byte, err error) {
	q.mu.Lock()
	done := q.waiting[id]
	delete(q.waiting, id)
	q.mu.Unlock()
	if done != nil {
		done <- answer{data, err}
	}
}

// OnCancel sets what [Queue.Cancel] calls; it must not wait.
func (q *Queue) OnCancel(cancel func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cancel = cancel
}

// Cancel passes on that the server wants what is under way to end.
func (q *Queue) Cancel() {
	q.mu.Lock()
	cancel := q.cancel
	q.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
