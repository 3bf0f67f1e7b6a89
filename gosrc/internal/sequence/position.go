package sequence

import (
	"cmp"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Compare returns above 0 if a is ahead of b, below 0 if it is behind. Of two equal last values the one that is_called
// is ahead: the other still hands the value out.
func Compare(increment int64, a, b host.SequencePosition) int {
	order := cmp.Compare(a.LastValue, b.LastValue)
	if increment < 0 {
		order = -order
	}
	switch {
	case order != 0 || a.IsCalled == b.IsCalled:
		return order
	case a.IsCalled:
		return 1
	}
	return -1
}

// Target returns where a sequence should stand that is to be margin increments ahead of the publisher: never beyond the
// position that leaves one more value, nor behind the publisher's own. clamped says that it is nearer than asked for.
func Target(def host.SequenceDefinition, publisher host.SequencePosition, margin int64) (to host.SequencePosition, clamped bool) {
	if margin <= 0 || def.Cycle {
		return publisher, false
	}
	steps := min(uint64(margin), stepsLeft(def, publisher))
	// Modulo 2^64 the sum is right even where the product is not an int64: the result lies within the bounds.
	to = publisher
	to.LastValue = int64(uint64(publisher.LastValue) + steps*uint64(def.Increment))
	return to, steps < uint64(margin)
}

// stepsLeft is how many increments a position can go on with one more value left behind it.
func stepsLeft(def host.SequenceDefinition, p host.SequencePosition) uint64 {
	if p.LastValue < def.Min || p.LastValue > def.Max || def.Increment == 0 {
		return 0
	}
	// The distance of two int64, and the magnitude of the least one, are a uint64.
	distance, step := uint64(def.Max)-uint64(p.LastValue), uint64(def.Increment)
	if def.Increment < 0 {
		distance, step = uint64(p.LastValue)-uint64(def.Min), -step
	}
	steps := distance / step
	if p.IsCalled && steps > 0 {
		steps--
	}
	return steps
}
