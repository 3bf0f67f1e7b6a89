package slotsync

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Settings are the server parameters that the worker goes by.
type Settings struct {
	SyncSlots           bool
	Slots               string
	Conninfo            string // replsync.primary_conninfo, else primary_conninfo
	UpstreamConninfo    string // primary_conninfo where the other one is set: to the server that this one streams from
	MaintenanceDatabase string
	NaptimeMin          time.Duration
	NaptimeMax          time.Duration
	ConnectTimeout      time.Duration
	RemoteTimeout       time.Duration
	PrimarySlotName     string
	HotStandbyFeedback  bool
	StatusInterval      int // wal_receiver_status_interval, in seconds
	WALLevel            string
	CoreSync            bool // sync_replication_slots
	ConfigFile          string
	DataDirectory       string
	ClusterName         string
}

// Where the library in the server is one without these parameters.
const (
	defaultNaptimeMin = 10 * time.Millisecond
	defaultNaptimeMax = 10 * time.Second
)

// readSettings asks for all of them at once.
func readSettings(ctx context.Context, h host.Host) (*Settings, error) {
	s := &Settings{}
	var ownConninfo, coreConninfo string
	var p settingParser
	fields := []struct {
		name  string
		store func(string)
	}{
		{"replsync.sync_slots", p.bool(&s.SyncSlots)},
		{"replsync.slots", p.text(&s.Slots)},
		{"replsync.primary_conninfo", p.text(&ownConninfo)},
		{"primary_conninfo", p.text(&coreConninfo)},
		{"replsync.maintenance_database", p.text(&s.MaintenanceDatabase)},
		{"replsync.slot_naptime_min", p.milliseconds(&s.NaptimeMin)},
		{"replsync.slot_naptime_max", p.milliseconds(&s.NaptimeMax)},
		{"replsync.connect_timeout", p.milliseconds(&s.ConnectTimeout)},
		{"replsync.remote_timeout", p.milliseconds(&s.RemoteTimeout)},
		{"primary_slot_name", p.text(&s.PrimarySlotName)},
		{"hot_standby_feedback", p.bool(&s.HotStandbyFeedback)},
		{"wal_receiver_status_interval", p.int(&s.StatusInterval)},
		{"wal_level", p.text(&s.WALLevel)},
		{"sync_replication_slots", p.bool(&s.CoreSync)},
		{"config_file", p.text(&s.ConfigFile)},
		{"data_directory", p.text(&s.DataDirectory)},
		{"cluster_name", p.text(&s.ClusterName)},
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	values, err := h.Settings(ctx, names...)
	if err != nil {
		return nil, err
	}
	if len(values) != len(names) {
		return nil, fmt.Errorf("asked for %d settings, got %d", len(names), len(values))
	}
	for i, f := range fields {
		p.name = f.name
		f.store(values[i])
	}
	if s.Conninfo, s.UpstreamConninfo = ownConninfo, coreConninfo; s.Conninfo == "" {
		s.Conninfo, s.UpstreamConninfo = coreConninfo, ""
	}
	if s.NaptimeMin <= 0 {
		s.NaptimeMin = defaultNaptimeMin
	}
	if s.NaptimeMax <= 0 {
		s.NaptimeMax = defaultNaptimeMax
	}
	s.NaptimeMax = max(s.NaptimeMax, s.NaptimeMin)
	return s, p.err
}

// settingParser keeps the first error; the name of the setting, never its value.
type settingParser struct {
	name string
	err  error
}

func (p *settingParser) text(to *string) func(string) { return func(v string) { *to = v } }

func (p *settingParser) bool(to *bool) func(string) { return func(v string) { *to = v == "on" } }

func (p *settingParser) int(to *int) func(string) {
	return func(v string) {
		n, err := strconv.Atoi(v)
		if err != nil && v != "" && p.err == nil {
			p.err = fmt.Errorf("parameter %s is not a number", p.name)
		}
		*to = n
	}
}

func (p *settingParser) milliseconds(to *time.Duration) func(string) {
	return func(v string) {
		n := 0
		p.int(&n)(v)
		*to = time.Duration(n) * time.Millisecond
	}
}

// sameConnection tells whether a connection made for a serves b.
func (s *Settings) sameConnection(b *Settings) bool {
	return s.Conninfo == b.Conninfo && s.UpstreamConninfo == b.UpstreamConninfo && s.MaintenanceDatabase == b.MaintenanceDatabase &&
		s.ClusterName == b.ClusterName && s.ConnectTimeout == b.ConnectTimeout && s.RemoteTimeout == b.RemoteTimeout
}
