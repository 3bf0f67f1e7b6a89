package slotsync

// keepRows is for copies whose rows nothing but the primary's own slots keeps. A slot begins where the oldest of all slots there
// is, which may be another standby's, or one that goes the next moment; and feedback cannot take back what it has let go of. The
// copies ask for the rows by now, so that the physical slot keeps them once it was taken back to there.
func (p *pass) keepRows() error {
	if !p.state.KeepsRows || p.memory.between != "" {
		return nil
	}
	var short []*plan
	var oldest *plan
	for _, plan := range p.planned(stepKeep) {
		if !p.isShort(plan) {
			continue
		}
		short = append(short, plan)
		if oldest == nil || plan.target.CatalogXmin.Precedes(oldest.target.CatalogXmin) {
			oldest = plan
		}
	}
	if oldest == nil {
		return nil
	}
	if err := p.primary.KeepRows(p.remote, p.settings.PrimarySlotName, oldest.target.CatalogXmin); err != nil {
		if p.ends(err) {
			return err
		}
		for _, plan := range short {
			plan.fail(err)
		}
		return nil
	}
	if err := p.reread(); err != nil {
		return err
	}
	for _, plan := range short {
		p.rejudge(plan)
	}
	return nil
}

// isShort tells whether a copy would be proven, if the physical slot kept what the primary's slot does.
func (p *pass) isShort(plan *plan) bool {
	unproven := plan.state == stateReady && !p.memory.proven[plan.name] ||
		plan.state == stateWaiting && plan.reason == reasonNotProtected
	return plan.local != nil && unproven && p.evidence(plan).short()
}
