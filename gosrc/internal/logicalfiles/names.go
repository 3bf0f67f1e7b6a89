package logicalfiles

import (
	"fmt"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// SnapshotName is the name of the snapshot file at lsn, which is never padded with zeros, on any version.
func SnapshotName(lsn host.LSN) string {
	return fmt.Sprintf("%X-%X.snap", uint32(lsn>>32), uint32(lsn))
}

// Mapping is what the name of a mapping file says.
type Mapping struct {
	Database  uint32 // 0 for the shared catalogs
	Relation  uint32
	LSN       host.LSN // start of the rewrite
	MappedXID host.XID
	CreateXID host.XID
}

// Name is LOGICAL_REWRITE_FORMAT (access/rewriteheap.h).
func (m Mapping) Name() string {
	return fmt.Sprintf("map-%x-%x-%X_%X-%x-%x",
		m.Database, m.Relation, uint32(m.LSN>>32), uint32(m.LSN), uint32(m.MappedXID), uint32(m.CreateXID))
}

// ParseMappingName reads the name of a mapping file. Names come from another server and become paths, so only the
// exact form that the server writes is taken.
func ParseMappingName(name string) (Mapping, error) {
	var m Mapping
	var hi, lo uint32
	n, err := fmt.Sscanf(name, "map-%x-%x-%X_%X-%x-%x",
		&m.Database, &m.Relation, &hi, &lo, (*uint32)(&m.MappedXID), (*uint32)(&m.CreateXID))
	m.LSN = host.LSN(uint64(hi)<<32 | uint64(lo))
	if err != nil || n != 6 || m.Name() != name {
		return Mapping{}, fmt.Errorf("invalid name of a mapping file: %q", name)
	}
	return m, nil
}
