package main

/*
#include "core_api.h"
*/
import "C"

import (
	"context"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
)

var _ host.Sequences = shim{}

// read makes a call and reads its answer as wire.h says.
func read[T any](ctx context.Context, s shim, kind int32, data []byte, value func(*reader) T) (T, error) {
	return ask(ctx, s, kind, data, func(b []byte) (T, error) {
		in := reader{b: b}
		v := value(&in)
		return v, in.err
	})
}

func (s shim) TakeRequest(ctx context.Context) (host.SequenceRequest, bool, error) {
	b, err := s.queue.Call(ctx, C.CORE_SEQUENCE_TAKE_REQUEST, nil)
	if err != nil || len(b) == 0 {
		return host.SequenceRequest{}, false, err
	}
	in := reader{b: b}
	r := host.SequenceRequest{
		ID:             in.uint64(),
		Kind:           host.SequenceRequestKind(in.int32()),
		AllowBackwards: in.bool(),
		Subscription:   subscriptionFrom(&in),
	}
	return r, in.err == nil, in.err
}

func (s shim) Answer(ctx context.Context, request uint64, rows []host.SequenceRow, last bool, err error) (bool, error) {
	var w writer
	w.uint64(request)
	w.bool(last || err != nil)
	w.error(err)
	w.int32(int32(len(rows)))
	for i := range rows {
		rowTo(&w, &rows[i])
	}
	return read(ctx, s, C.CORE_SEQUENCE_ANSWER, w.b, (*reader).bool)
}

func (s shim) Subscriptions(ctx context.Context) ([]host.Subscription, error) {
	return read(ctx, s, C.CORE_SEQUENCE_SUBSCRIPTIONS, nil, func(in *reader) (subscriptions []host.Subscription) {
		for range in.count() {
			subscriptions = append(subscriptions, subscriptionFrom(in))
		}
		return subscriptions
	})
}

func (s shim) KeepMembers(ctx context.Context, subscription host.OID, names []host.SequenceName) error {
	var w writer
	w.oid(subscription)
	w.int32(int32(len(names)))
	for _, name := range names {
		w.name(name)
	}
	return s.do(ctx, C.CORE_SEQUENCE_MEMBERS, w.b)
}

func (s shim) LocalSequences(ctx context.Context, subscription host.OID, after host.SequenceName,
	limit int,
) ([]host.LocalSequence, error) {
	var w writer
	w.oid(subscription)
	w.name(after)
	w.int32(int32(limit))
	return read(ctx, s, C.CORE_SEQUENCE_LIST, w.b, localSequencesFrom)
}

func (s shim) SetSequences(ctx context.Context, subscription host.OID,
	sets []host.SequenceSet,
) ([]host.SequenceSetResult, error) {
	var w writer
	w.oid(subscription)
	w.int32(int32(len(sets)))
	for _, set := range sets {
		w.oid(set.OID)
		w.position(set.To)
		w.bool(set.Backwards)
	}
	return read(ctx, s, C.CORE_SEQUENCE_SET, w.b, func(in *reader) []host.SequenceSetResult {
		results := make([]host.SequenceSetResult, in.count())
		for i := range results {
			results[i] = host.SequenceSetResult{Before: in.position(), After: in.position(), Err: in.error()}
		}
		if in.err == nil && len(results) != len(sets) {
			in.err = errShortAnswer
		}
		return results
	})
}

func (s shim) RecordSequences(ctx context.Context, subscription host.OID, records []host.SequenceRecord) error {
	var w writer
	w.oid(subscription)
	w.int32(int32(len(records)))
	for i := range records {
		r := &records[i]
		w.name(r.SequenceName)
		w.oid(r.OID)
		w.position(r.Publisher)
		w.bool(r.Known)
		w.text(r.Problem)
		w.text(r.Detail)
		w.text(r.Hint)
	}
	return s.do(ctx, C.CORE_SEQUENCE_RECORD, w.b)
}

func (s shim) FinishSequences(ctx context.Context, subscription host.OID, cycle host.SequenceCycle) error {
	var w writer
	w.oid(subscription)
	w.bool(cycle.Complete)
	w.int64(cycle.Generation)
	w.uint64(uint64(cycle.Watermark.LSN))
	w.uint64(cycle.Watermark.SystemIdentifier)
	w.uint32(cycle.Watermark.Timeline)
	w.bool(cycle.Write)
	return s.do(ctx, C.CORE_SEQUENCE_FINISH, w.b)
}

func (s shim) CycleDone(ctx context.Context, duration time.Duration, err error) error {
	c := C.CoreSequenceCycle{duration_us: C.int64_t(duration.Microseconds())}
	putOutcome(&c.outcome, err)
	return s.do(ctx, C.CORE_SEQUENCE_CYCLE_DONE, raw(&c))
}

func subscriptionFrom(in *reader) host.Subscription {
	s := host.Subscription{
		OID:             in.oid(),
		Name:            in.text(),
		Enabled:         in.bool(),
		Publications:    in.texts(),
		Slot:            in.text(),
		Conninfo:        in.text(),
		ConninfoErr:     in.error(),
		SuperuserOwner:  in.bool(),
		MustUsePassword: in.bool(),
		Selection:       host.SequenceSelection{All: in.bool(), Include: in.texts(), Exclude: in.texts()},
		Margin:          in.int64(),
		Requested:       in.int64(),
		Done:            in.int64(),
		Watermark: host.Watermark{
			LSN:              host.LSN(in.uint64()),
			SystemIdentifier: in.uint64(),
			Timeline:         in.uint32(),
		},
	}
	if written := in.int64(); written != 0 {
		s.WatermarkWritten = time.UnixMicro(written)
	}
	s.Unselected = in.bool()
	return s
}

func localSequencesFrom(in *reader) []host.LocalSequence {
	in.share()
	sequences := make([]host.LocalSequence, in.count())
	for i := range sequences {
		sequences[i] = host.LocalSequence{
			SequenceName: in.name(),
			OID:          in.oid(),
			NotOurs:      in.text(),
			Definition: host.SequenceDefinition{
				Type:      in.oid(),
				Start:     in.int64(),
				Increment: in.int64(),
				Min:       in.int64(),
				Max:       in.int64(),
				Cycle:     in.bool(),
			},
			Position: in.position(),
			Problem:  in.text(),
		}
	}
	return sequences
}

func rowTo(w *writer, r *host.SequenceRow) {
	w.name(r.SequenceName)
	w.position(r.Publisher)
	w.bool(r.PublisherKnown)
	w.int64(r.Before)
	w.int64(r.After)
	w.bool(r.LocalKnown)
	w.text(r.Action)
	w.text(r.Reason)
	w.text(r.Check)
	w.text(r.Object)
	switch {
	case r.OK == nil:
		w.int32(-1)
	case *r.OK:
		w.int32(1)
	default:
		w.int32(0)
	}
	w.text(r.Detail)
	w.text(r.Hint)
	w.uint64(uint64(r.LSN))
}
