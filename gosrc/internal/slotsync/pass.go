package slotsync

import (
	"context"
	"fmt"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/primary"
)

// Primary is what a pass needs from the primary server; see [primary.Client].
type Primary interface {
	Read(ctx context.Context, physicalSlot string) (*primary.State, error)
	Snapshots(ctx context.Context, lsns []host.LSN) (map[host.LSN]primary.Snapshot, error)
	Mappings(ctx context.Context, sources []primary.Source, file func(name string, content []byte) error) error
	// KeepRows has the physical slot keep catalog rows from xid on that logical slots keep, where State.KeepsRows says so.
	KeepRows(ctx context.Context, physicalSlot string, xid host.XID) error
	Inspect(ctx context.Context, physicalSlot string) (*primary.Inspection, error)
	// Watch has changed called once a slot has changed since Read, or the time is over, unless the primary is used before.
	// It returns false where that is not possible.
	Watch(ctx context.Context, timeout time.Duration, changed func()) bool
	ErrNoAccess() error
	Close()
}

// Files is where snapshot and mapping files go; see [logicalfiles.Store].
type Files interface {
	HasSnapshot(lsn host.LSN) bool
	WriteSnapshot(lsn host.LSN, content []byte) error
	WriteMapping(name string, content []byte) error
	Sync() error // makes what was written durable
	Recheck() (int, error)
	Forget()
}

// pass is one pass over the slots.
//
// Requests to this server go out under ctx, which ends with the worker; they are short. What may take long, which is
// anything at the primary, goes out under remote, which ends with the pass too.
type pass struct {
	h       host.Host
	ctx     context.Context
	remote  context.Context
	primary Primary
	// openUpstream connects to the server that this one streams from, where that may be another one.
	openUpstream func() (Primary, error)
	files        Files
	settings     *Settings
	memory       *memory
	asked        bool // somebody waits for the pass

	recovery host.Recovery
	major    int
	local    []host.Slot // at the beginning
	floor    host.XID    // oldest catalog_xmin of them
	before   host.XID    // what the physical slot held before this pass reserved anything
	low      host.XID    // what the next copy that is made asks for, if it needs no older one; 0: nothing of the kind
	state    *primary.State
	readAt   time.Time // when the read of state began
	reading  time.Duration
	input    input
	plans    []*plan

	lapsed  bool              // a read in this pass showed a lapse
	wasOff  bool              // feedback was off, which is certainly one
	out     []host.SlotStatus // the copies as that was found at the beginning
	changed bool              // something was done, or is about to be possible
	awaited bool              // a position is on its way here
	soon    time.Duration     // after which there is something to do whatever happens at the primary; 0: nothing
	more    bool              // files that copies need are left to the next pass, which is to come at once
}

// run carries a pass out. Where it fails as a whole it may still return rows, for what the failure means to the copies.
func (p *pass) run() ([]host.SlotStatus, error) {
	patterns, err := ParsePatterns(p.settings.Slots, p.major)
	if err != nil {
		return nil, err
	}
	if p.local, err = p.h.Slots(p.ctx); err != nil {
		return nil, err
	}
	p.floor = oldestXmin(p.local)
	if r := refuseHere(p.settings, p.recovery); r != nil {
		return p.refused(r), r
	}
	p.noteFeedback()
	if p.wasOff {
		if err := p.takeOut(); err != nil {
			return nil, err
		}
	}
	p.progress("reading", 0, 0)
	if err := p.read(); err != nil {
		return p.unread(err), err
	}
	p.recheckFiles()
	if rows := p.asBefore(); rows != nil {
		return rows, nil
	}
	p.plan(patterns)
	if err := p.carryOut(); err != nil {
		return p.lost(), err
	}
	rows := p.rows()
	p.noteIdle(rows)
	return rows, nil
}

// plan decides what is to be done.
func (p *pass) plan(patterns Patterns) {
	remote, newest := p.arrived()
	p.input = input{
		remote:   remote,
		local:    p.local,
		recovery: p.recovery,
		flushed:  p.flushed(),
		wanted:   patterns.Wanted,
		listed:   p.memory.listed,
	}
	p.plans = decide(p.input)
	for _, plan := range p.plans {
		plan.readAt = p.readAt
		if substitute, ok := newest[plan.name]; ok {
			plan.seen, plan.readAt = substitute.newest, substitute.at
		}
		// As long as WAL arrives, the position soon will have.
		if plan.reason == reasonNotFlushed {
			p.awaited = true
			if p.recovery.FlushLSN > p.memory.flushed {
				p.again(p.settings.NaptimeMin)
			}
		}
	}
	p.memory.flushed = p.recovery.FlushLSN
	p.goBack()
	p.keepLow()
}

// goBack is about copies that are ahead of the primary's slot. That slot may have been made anew at an older position: then
// the copy would skip transactions. Or the primary has crashed, and has forgotten what was confirmed to it. A copy that is
// made anew at the primary's position is right in both cases: it sends again what the primary would.
//
// Where WAL from there on is not here, or the files cannot be had, the copy is taken out of use, unless the primary was started since the copy was
// seen not to be ahead: then it was a crash.
func (p *pass) goBack() {
	if p.flushed() == 0 {
		return // nothing was compared
	}
	for _, plan := range p.plans {
		if plan.step != stepKeep || plan.remote == nil || plan.reason == reasonNotWanted {
			continue
		}
		if !plan.ahead {
			p.memory.level[plan.name] = p.state.PostmasterStart
			continue
		}
		here, err := p.h.WALAvailable(p.ctx, plan.remote.RestartLSN)
		start, known := p.memory.level[plan.name]
		switch {
		case err != nil:
			plan.fail(err)
			plan.step = stepNone
		case here && p.state.Files != primary.NoAccess:
			plan.ahead, plan.dropFirst, plan.step = false, true, stepNone
			plan.decideNew(p.input)
		case known && start != p.state.PostmasterStart:
			plan.ahead = false
		}
	}
}

// carryOut does what was planned. Its errors are those of the primary and of the pass; what concerns one slot stays in
// its plan.
func (p *pass) carryOut() error {
	if p.state.Files == primary.NoAccess && p.needFiles() {
		err := p.primary.ErrNoAccess()
		return &refusal{err: &host.Error{Message: host.Describe(err), Err: err}}
	}
	var err error
	for _, stage := range []func() error{p.create, p.move, p.drop, p.keepRows, p.handshake} {
		if err = stage(); err != nil {
			break
		}
	}
	// What is not safe is taken out of use only now: it may have been proven meanwhile. After a pass that came to no end
	// this needs a lapse that was seen, not just the lack of a proof.
	if err == nil || p.lapsed {
		p.demote()
	}
	if err == nil {
		p.remember()
	}
	return err
}

func (p *pass) needFiles() bool {
	for _, plan := range p.plans {
		if plan.step == stepCreate || plan.snapshot != 0 {
			return true
		}
	}
	return false
}

// cancelled tells whether the pass is to end here.
func (p *pass) cancelled() error {
	if p.remote.Err() != nil {
		return context.Cause(p.remote)
	}
	return nil
}

// recheckFiles restores files that a restartpoint removed after the last pass wrote them.
func (p *pass) recheckFiles() {
	lost, err := p.files.Recheck()
	if err != nil {
		if p.memory.fileError != err.Error() {
			p.memory.fileError = err.Error()
			p.log(host.Warning, host.Message{SQLState: "58030", Text: "could not restore files of replication slots: " + err.Error()})
		}
		return
	}
	p.memory.fileError = ""
	if lost > 0 {
		p.log(host.Debug, host.Message{Text: fmt.Sprintf("restored %d files of replication slots that a restartpoint removed", lost)})
	}
	p.files.Forget()
}

// again has the next pass come after a time at most.
func (p *pass) again(after time.Duration) {
	if p.soon == 0 || after < p.soon {
		p.soon = after
	}
}

// remember leaves to the next pass which copies are here.
func (p *pass) remember() {
	clear(p.memory.listed)
	names := make(map[string]bool, len(p.plans))
	for _, plan := range p.plans {
		names[plan.name] = true
		if plan.local != nil && isCopy(*plan.local) {
			p.memory.listed[plan.name] = true
		} else {
			p.memory.forget(plan.name)
		}
	}
	p.memory.keepOnly(names)
}

func (p *pass) log(level host.Level, m host.Message) {
	_ = p.h.Log(p.ctx, level, m)
}

// progress shows what the pass does; total is 0 where nothing is counted.
func (p *pass) progress(phase string, done, total int) {
	_ = p.h.Progress(p.ctx, phase, done, total)
}
