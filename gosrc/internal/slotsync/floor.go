package slotsync

import "github.com/replsync/replsync/gosrc/internal/host"

// keepLow keeps one copy, the oldest, no newer than anything that holds rows on the primary: what feedback asks for is
// the oldest of the copies, and the primary never takes that back. A slot that is made there begins at the oldest of all
// (GetOldestSafeDecodingTransactionId, procarray.c), so that its copy is protected from the first moment on, also where a
// long query of another standby is older than every slot. It costs nothing: the primary holds those rows anyway.
//
// What other standbys ask for on behalf of their slots is left out. Two standbys that waited for each other would never
// go on.
func (p *pass) keepLow() {
	floor := p.floorThere()
	p.low = 0
	p.memory.release()
	var lowest *plan
	for _, plan := range p.planned(stepKeep) {
		if plan.local.CatalogXmin == 0 || plan.local.Invalidated {
			continue
		}
		if !floor.Precedes(plan.target.CatalogXmin) {
			return // this one is old enough
		}
		if lowest == nil || plan.local.CatalogXmin.Precedes(lowest.local.CatalogXmin) {
			lowest = plan
		}
	}
	if floor == 0 {
		return
	}
	if lowest == nil {
		p.low = floor
		return
	}
	p.memory.holdBack(floor)
	lowest.target.CatalogXmin = lowest.local.CatalogXmin
	if lowest.local.CatalogXmin.Precedes(floor) {
		lowest.target.CatalogXmin = floor
	}
}

// createLow returns the catalog_xmin of a copy that is made. The first copy stands for keepLow. It cannot ask for less than
// the primary was asked for already.
func (p *pass) createLow(x host.XID) host.XID {
	low := p.low
	if p.before != 0 && low.Precedes(p.before) {
		low = p.before
	}
	if low != 0 && low.Precedes(x) {
		return low
	}
	return x
}

// floorThere is the oldest transaction whose rows slots of the primary hold, 0 if none does.
func (p *pass) floorThere() host.XID {
	floor := p.state.OldestXmin
	for i := range p.state.Slots {
		if x := p.state.Slots[i].CatalogXmin; x != 0 && (floor == 0 || x.Precedes(floor)) {
			floor = x
		}
	}
	return floor
}
