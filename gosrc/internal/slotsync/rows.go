package slotsync

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// fail takes note of an error of this server that is this slot's own. Some are known states, not failures.
func (p *plan) fail(err error) {
	switch {
	case host.HasCode(err, "58P01"):
		p.wait(reasonRemoved)
	case host.HasCode(err, "3D000"):
		p.wait(reasonDatabase)
	case host.HasCode(err, "53400"):
		p.wait(reasonNoSlot)
	case host.HasCode(err, "55006"):
		p.wait(reasonInUse)
	case host.HasCode(err, "42704"): // dropped since it was listed
		p.wait(reasonGone)
	default:
		p.failThere(err)
	}
}

// failThere takes note of an error that this server has not raised: its code says nothing about the copy.
func (p *plan) failThere(err error) {
	p.err = err
	p.show(stateFailed, actionFailed, reasonError)
}

// rows shows the plans, and logs trouble.
func (p *pass) rows() []host.SlotStatus {
	for _, plan := range p.plans {
		p.logTrouble(plan)
	}
	return p.status()
}

// status shows the plans.
func (p *pass) status() []host.SlotStatus {
	rows := make([]host.SlotStatus, 0, len(p.plans))
	for _, plan := range p.plans {
		row := plan.row()
		row.LastSyncAt = p.memory.synced[plan.name]
		if row.Database == "" {
			row.Database = p.memory.databases[plan.database]
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b host.SlotStatus) int { return cmp.Compare(a.Name, b.Name) })
	return rows
}

func (p *plan) row() host.SlotStatus {
	if p.byOther && p.reason == reasonNone {
		p.reason = reasonDropped
	}
	row := host.SlotStatus{
		Name:   p.name,
		State:  p.state,
		Action: p.action,
		Reason: string(p.reason),
		Hint:   p.reason.hint(p.name),
	}
	if p.err != nil {
		m := host.Describe(p.err)
		row.Error = m.Text
		if m.Detail != "" {
			row.Error += ": " + m.Detail
		}
		if m.Hint != "" {
			row.Hint = m.Hint
		}
	}
	if remote := cmp.Or(p.seen, p.remote); remote != nil {
		row.Database, row.Plugin = remote.Database, remote.Plugin
		row.RemoteRestartLSN = remote.RestartLSN
		row.RemoteConfirmedFlushLSN = remote.ConfirmedFlushLSN
	}
	if p.local != nil {
		row.RestartLSN = p.local.RestartLSN
		row.ConfirmedFlushLSN = p.local.ConfirmedFlushLSN
		if p.remote == nil && p.local.Plugin != placeholder {
			row.Plugin = p.local.Plugin
		}
	}
	return row
}

// logTrouble logs that a slot is not ready, once for each reason. What an error has in its detail may differ each time.
func (p *pass) logTrouble(plan *plan) {
	row := plan.row()
	text := row.Reason
	if plan.err != nil {
		text += troubleKey(plan.err)
	}
	if row.State == stateReady || row.State == "" {
		text = ""
	}
	told := p.memory.told[row.Name]
	p.memory.told[row.Name] = text
	if text == "" && told != "" && row.State == stateReady && !plan.saidReady {
		p.logReady(plan)
	}
	if text == "" || text == told {
		return
	}
	m := host.Message{Text: fmt.Sprintf("replication slot \"%s\" is not ready: %s", row.Name, row.Reason), Hint: row.Hint}
	level := host.Info
	if row.Error != "" {
		m.Text = fmt.Sprintf("could not synchronize replication slot \"%s\": %s", row.Name, row.Error)
		level = host.Warning
	}
	p.log(level, m)
}

func (p *pass) logCreated(plan *plan) {
	m := host.Message{Text: fmt.Sprintf("created a copy of replication slot \"%s\"", plan.name)}
	if plan.byOther {
		m.Detail = "The one that was here was not dropped by replsync."
		m.Hint = reasonDropped.hint(plan.name)
	}
	if plan.state == stateReady {
		m.Text += ", which is ready"
		plan.saidReady = true
	}
	p.log(host.Info, m)
}

func (p *pass) logReady(plan *plan) {
	plan.saidReady = true
	p.log(host.Info, host.Message{Text: fmt.Sprintf("the copy of replication slot \"%s\" is ready", plan.name)})
}

func (p *pass) logDropped(plan *plan) {
	p.log(host.Info, host.Message{Text: fmt.Sprintf("dropped replication slot \"%s\" of database with OID %d", plan.name, plan.local.Database)})
}

// merge replaces the rows of some slots: a pass that failed says nothing about the others.
func merge(rows, newer []host.SlotStatus) []host.SlotStatus {
	merged := slices.Clone(newer)
	for _, row := range rows {
		if !slices.ContainsFunc(newer, func(r host.SlotStatus) bool { return r.Name == row.Name }) {
			merged = append(merged, row)
		}
	}
	slices.SortFunc(merged, func(a, b host.SlotStatus) int { return cmp.Compare(a.Name, b.Name) })
	return merged
}

// shown leaves out the slots that are no more.
func shown(rows []host.SlotStatus) []host.SlotStatus {
	if !slices.ContainsFunc(rows, func(r host.SlotStatus) bool { return r.State == "" }) {
		return rows
	}
	var left []host.SlotStatus
	for _, row := range rows {
		if row.State != "" {
			left = append(left, row)
		}
	}
	return left
}

// hideRow takes a slot out of what is shown.
func (w *Worker) hideRow(name string) {
	rows := make([]host.SlotStatus, 0, len(w.rows))
	for _, row := range w.rows {
		if row.Name != name {
			rows = append(rows, row)
		}
	}
	w.rows = rows
}
