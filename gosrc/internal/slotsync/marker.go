package slotsync

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// marker is what is kept with a copy, in the slot's directory. Writing it costs as much as writing the slot, so it says
// nothing that changes when a copy only moves.
type marker struct {
	// Need is the primary's catalog_xmin that the copy stands for, where that is not the copy's own, which is capped at
	// what has been replayed here; else it is stored as 0.
	Need host.XID
	// Proven copies carry the real plugin: they are usable after a promotion.
	Proven bool
	// Promoted copies became real slots when this server was promoted. Met on a standby they are leftovers.
	Promoted bool
	// Original slots were never copies: they were made while this server was a primary, which the shim notes.
	Original bool
	// Failover is what the primary said, also while the copy may not carry it.
	Failover bool
}

const markerVersion = "1"

// String is the stored form: words of the form key=value.
func (m marker) String() string {
	return fmt.Sprintf("v=%s need=%d proven=%d promoted=%d failover=%d",
		markerVersion, m.Need, digit(m.Proven), digit(m.Promoted), digit(m.Failover))
}

func digit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// markerOf reads the marker of a copy and fills in its need. The marker and the slot are not written in one step: a crash
// may leave a marker that calls a copy proven which still has the placeholder.
func markerOf(s *host.Slot) (m marker, ok bool) {
	m, ok = parseMarker(s.Marker)
	if m.Need == 0 {
		m.Need = s.CatalogXmin
	}
	m.Proven = m.Proven && s.Plugin != placeholder
	return m, ok
}

// parseMarker reads a marker; unknown keys are passed over, an unknown version is not.
func parseMarker(s string) (m marker, ok bool) {
	version := ""
	for _, word := range strings.Fields(s) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "v":
			version = value
		case "need":
			need, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return marker{}, false
			}
			m.Need = host.XID(need)
		case "proven":
			m.Proven = value == "1"
		case "promoted":
			m.Promoted = value == "1"
		case "original":
			m.Original = value == "1"
		case "failover":
			m.Failover = value == "1"
		}
	}
	return m, version == markerVersion
}
