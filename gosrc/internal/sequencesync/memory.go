package sequencesync

import (
	"hash/maphash"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// memory knows what was last recorded of each sequence, by hashes: with 100 000 sequences these are some 4 MB, and nothing
// in them for the garbage collector to look at. Two records of the same hash would leave an outdated one on show.
type memory struct {
	seed     maphash.Seed
	recorded map[uint64]uint64
}

func newMemory() *memory {
	return &memory{seed: maphash.MakeSeed(), recorded: make(map[uint64]uint64)}
}

// content hashes all but the name. Numbers in an array take a fraction of the time that the record does.
func (m *memory) content(r *host.SequenceRecord) uint64 {
	numbers := [2]uint64{uint64(r.OID), uint64(r.Publisher.LastValue)}
	if r.Publisher.IsCalled {
		numbers[0] |= 1 << 32
	}
	if r.Known {
		numbers[0] |= 1 << 33
	}
	content := maphash.Comparable(m.seed, numbers)
	if r.Problem != "" || r.Detail != "" || r.Hint != "" {
		content ^= maphash.Comparable(m.seed, [3]string{r.Problem, r.Detail, r.Hint})
	}
	return content
}

// news tells whether a record differs from the last one, and remembers it.
func (m *memory) news(r *host.SequenceRecord) bool {
	key, content := maphash.Comparable(m.seed, r.SequenceName), m.content(r)
	if last, ok := m.recorded[key]; ok && last == content {
		return false
	}
	m.recorded[key] = content
	return true
}

// trim forgets all once most of it is about sequences that are no longer under care.
func (m *memory) trim(members int) {
	if len(m.recorded) > 2*members+1000 {
		clear(m.recorded)
	}
}

func (m *memory) forget() { clear(m.recorded) }
