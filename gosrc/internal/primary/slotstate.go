package primary

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Layout of pg_replslot/<slot>/state: ReplicationSlotOnDisk (slot.c) around ReplicationSlotPersistentData (slot.h), the
// same on 15 (version 2), 16 (version 3), 17 and later (version 5) up to the fields that are read here: two_phase_at
// comes after a field of 8 bytes on 15 (invalidated_at) and of 4 plus padding later (invalidated).
const (
	stateMagic         = 0x1051CA1
	stateChecksumAt    = 4
	stateVersionAt     = 8 // the checksum covers what comes from here on
	stateLengthAt      = 12
	stateDataAt        = 16
	stateNameLen       = 64
	stateTwoPhaseLSNAt = stateDataAt + 104
	stateTwoPhaseAt    = stateDataAt + 112
)

var errState = errors.New("unknown format of a replication slot's state file")

// parseTwoPhaseAt reads two_phase_at of the slot from its state file.
func parseTwoPhaseAt(state []byte, name string) (host.LSN, error) {
	le := binary.LittleEndian
	if len(state) <= stateTwoPhaseAt || le.Uint32(state) != stateMagic {
		return 0, errState
	}
	switch le.Uint32(state[stateVersionAt:]) {
	case 2, 3, 5:
	default:
		return 0, errState
	}
	if uint64(le.Uint32(state[stateLengthAt:]))+stateDataAt != uint64(len(state)) ||
		crc32.Checksum(state[stateVersionAt:], crc32.MakeTable(crc32.Castagnoli)) != le.Uint32(state[stateChecksumAt:]) {
		return 0, errState
	}
	stored := state[stateDataAt : stateDataAt+stateNameLen]
	if len(name) >= stateNameLen || string(stored[:len(name)]) != name || stored[len(name)] != 0 {
		return 0, errState
	}
	if state[stateTwoPhaseAt] != 1 {
		return 0, errState // the flag was set in memory after the file was written
	}
	return host.LSN(le.Uint64(state[stateTwoPhaseLSNAt:])), nil
}
