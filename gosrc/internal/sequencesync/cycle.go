package sequencesync

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
	"github.com/replsync/replsync/gosrc/internal/safego"
)

const (
	// perPortion is how many sequences are read at a time: the publisher locks them for as long as one statement takes.
	perPortion = 1000
	// perSet is how many are set in a transaction, which locks them too.
	perSet = 200
	// maxNamed is how many sequences a log line names.
	maxNamed = 10
)

// cycle goes once over the sequences of a subscription.
type cycle struct {
	host      host.Sequences
	publisher Publisher
	sub       *host.Subscription
	memory    *memory // nil: nothing is set or recorded
	rules     rules
	expected  int // sequences, as of the last cycle
	// first are the names of the first portion: those of the last cycle, and then of this one.
	first []host.SequenceName

	found   func([]finding) error // takes the findings of a request, which are not there afterwards
	between func() error          // is called after each portion

	findings []finding // of the portion that is handled
	mark     publisher.Mark
	members  int
	set      int
	recorded int // problems that came or went
	troubles []string
	behind   int // what would have to be set, or has been
	failed   int
}

// portion is some sequences on both sides.
type portion struct {
	locals []host.LocalSequence
	values []publisher.Value
}

func (c *cycle) run(ctx context.Context) error {
	if c.sub.ConninfoErr != nil {
		return c.sub.ConninfoErr
	}
	if c.sub.Unselected {
		if err := c.begin(ctx); err != nil {
			return err
		}
		if err := c.selectMembers(ctx); err != nil {
			return err
		}
	}

	reading, stop := context.WithCancel(ctx)
	portions := make(chan portion)
	end := make(chan error, 1)
	safego.Go(func() error { return c.read(reading, portions) }, func(err error) {
		end <- err
		close(portions)
	})
	var err error
	for p := range portions {
		if err = safego.Do(func() error { return c.handle(ctx, &p) }); err != nil {
			break
		}
	}
	// The publisher must not be used by two: the reader is waited for.
	stop()
	if readErr := <-end; err == nil {
		err = readErr
	}
	return err
}

// begin finds out where the publisher stands: nothing that is read of it afterwards is older than that.
func (c *cycle) begin(ctx context.Context) error {
	mark, err := c.publisher.Mark(ctx)
	if err != nil {
		return err
	}
	c.mark = mark
	c.rules.role = c.publisher.User()
	if c.memory != nil && c.sub.Done < c.sub.Requested {
		// The selection may have been removed and made again: what was recorded of it may be gone.
		c.memory.forget()
	}
	return nil
}

// selectMembers finds the sequences that the rules of a dump mean.
func (c *cycle) selectMembers(ctx context.Context) error {
	var members []host.SequenceName
	err := c.publisher.Select(ctx, c.sub.Publications, c.sub.Selection, func(names []host.SequenceName) error {
		members = append(members, names...)
		return nil
	})
	if err != nil {
		return err
	}
	return c.host.KeepMembers(ctx, c.sub.OID, members)
}

// read brings the sequences of both sides together, one portion ahead of those that are handled. The list of those here is
// one more ahead: this server looks its sequences up while the publisher does, and while it is asked where it stands.
func (c *cycle) read(ctx context.Context, out chan<- portion) error {
	listing, stop := context.WithCancel(ctx)
	lists := make(chan []host.LocalSequence)
	end := make(chan error, 1)
	safego.Go(func() error { return c.list(listing, lists) }, func(err error) {
		end <- err
		close(lists)
	})
	err := safego.Do(func() error {
		if err := c.begin(ctx); err != nil {
			return err
		}
		return c.pair(ctx, lists, out)
	})
	stop()
	if listErr := <-end; err == nil {
		err = listErr
	}
	return err
}

// list reads the sequences here.
func (c *cycle) list(ctx context.Context, out chan<- []host.LocalSequence) error {
	var after host.SequenceName
	for {
		locals, err := c.host.LocalSequences(ctx, c.sub.OID, after, perPortion)
		if err != nil || len(locals) == 0 {
			return err
		}
		select {
		case out <- locals:
		case <-ctx.Done():
			return ctx.Err()
		}
		if len(locals) < perPortion {
			return nil
		}
		after = locals[len(locals)-1].SequenceName
	}
}

// pair reads the publisher's values of sequences. Those that the last cycle began with are read without a list, which is made
// meanwhile.
func (c *cycle) pair(ctx context.Context, lists <-chan []host.LocalSequence, out chan<- portion) error {
	guess := c.first
	c.first = nil
	var values []publisher.Value
	var err error
	if len(guess) > 0 {
		if values, err = c.publisher.Values(ctx, guess); err != nil {
			return err
		}
	}
	for locals := range lists {
		names := make([]host.SequenceName, len(locals))
		for i := range locals {
			names[i] = locals[i].SequenceName
		}
		if c.first == nil {
			c.first = names
		}
		if !slices.Equal(names, guess) {
			if values, err = c.publisher.Values(ctx, names); err != nil {
				return err
			}
		}
		guess = nil
		select {
		case out <- portion{locals, values}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *cycle) handle(ctx context.Context, p *portion) error {
	c.findings = c.findings[:0]
	for i := range p.locals {
		c.findings = append(c.findings, c.rules.examine(&p.locals[i], &p.values[i]))
		if c.findings[i].set {
			c.behind++
		}
	}
	findings := c.findings
	if c.memory != nil {
		if err := c.setAll(ctx, findings); err != nil {
			return err
		}
		if err := c.record(ctx, findings); err != nil {
			return err
		}
	}
	if c.found != nil {
		if err := c.found(findings); err != nil {
			return err
		}
	}
	c.members += len(findings)
	for i := range findings {
		if findings[i].reason.isProblem() {
			c.failed++
		}
	}
	_ = c.host.Progress(ctx, "synchronizing sequences", c.members, max(c.expected, c.members))
	if c.between != nil {
		return c.between()
	}
	return nil
}

// setAll sets what is to be set, in short transactions.
func (c *cycle) setAll(ctx context.Context, findings []finding) error {
	which := make([]*finding, 0, perSet)
	sets := make([]host.SequenceSet, 0, perSet)
	flush := func() error {
		if len(sets) == 0 {
			return nil
		}
		results, err := c.host.SetSequences(ctx, c.sub.OID, sets)
		if err != nil {
			return err
		}
		if len(results) != len(sets) {
			return fmt.Errorf("set %d sequences, got %d results", len(sets), len(results))
		}
		for i, f := range which {
			c.rules.settle(f, &results[i])
			if f.action == actionSet {
				c.set++
			}
		}
		which, sets = which[:0], sets[:0]
		return nil
	}
	for i := range findings {
		f := &findings[i]
		if !f.set {
			continue
		}
		which = append(which, f)
		sets = append(sets, host.SequenceSet{OID: f.local.OID, To: f.to, Backwards: f.backwards})
		if len(sets) == perSet {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// record keeps what is new.
func (c *cycle) record(ctx context.Context, findings []finding) error {
	var records []host.SequenceRecord
	for i := range findings {
		f := &findings[i]
		r := f.record()
		changed := r.Problem != f.local.Problem
		if changed {
			c.recorded++
			c.complain(f, &r)
		}
		// Each failure counts.
		if c.memory.news(&r) || changed || r.Problem != "" {
			records = append(records, r)
		}
	}
	if len(records) == 0 {
		return nil
	}
	err := c.host.RecordSequences(ctx, c.sub.OID, records)
	if err != nil {
		c.memory.forget()
	}
	return err
}

// complain collects what the log will say of problems that are new.
func (c *cycle) complain(f *finding, r *host.SequenceRecord) {
	if r.Problem == "" || f.reason == reasonLocked || f.reason == reasonLockedPublisher {
		return
	}
	if len(c.troubles) < maxNamed {
		c.troubles = append(c.troubles, fmt.Sprintf("\"%s.%s\": %s", f.local.Schema, f.local.Name, r.Problem))
	} else if len(c.troubles) == maxNamed {
		c.troubles = append(c.troubles, "...")
	}
}

// trouble is the log line about problems that are new; empty without any.
func (c *cycle) trouble() host.Message {
	if len(c.troubles) == 0 {
		return host.Message{}
	}
	return host.Message{
		SQLState: "55000",
		Text:     fmt.Sprintf("some sequences of subscription \"%s\" are not synchronized", c.sub.Name),
		Detail:   strings.Join(c.troubles, ", "),
		Hint:     "See the view replsync.sequence_status for what to do about each.",
	}
}
