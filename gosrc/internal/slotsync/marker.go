package slotsync

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// marker is what is kept with a copy, in the slot's directory. It changes only where the slot is written to disk
// anyway.
type marker struct {
	// Need is the primary's catalog_xmin that the copy stands for. The copy's own may be older: it is capped at what
	// has been replayed here.
	Need host.XID
	// Proven copies carry the real plugin: they are usable after a promotion.
	Proven bool
	// Promoted copies became real slots when this server was promoted. Met on a standby they are leftovers.
	Promoted bool
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

// parseMarker reads a marker; unknown keys are passed over, an unknown version or a missing need is not.
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
		case "failover":
			m.Failover = value == "1"
		}
	}
	return m, version == markerVersion && m.Need != 0
}
