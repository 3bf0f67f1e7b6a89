package sequencesync

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// Settings are the server parameters that the worker goes by.
type Settings struct {
	SyncSequences  bool
	NaptimeMin     time.Duration
	NaptimeMax     time.Duration
	ConnectTimeout time.Duration
	RemoteTimeout  time.Duration
	ClusterName    string
}

// Where the library in the server is one without these parameters. The values are those proposed for core.
const (
	defaultNaptimeMin = 2 * time.Second
	defaultNaptimeMax = 30 * time.Second
)

func readSettings(ctx context.Context, h host.Server) (*Settings, error) {
	names := []string{
		"replsync.sync_sequences", "replsync.sequence_naptime_min", "replsync.sequence_naptime_max",
		"replsync.connect_timeout", "replsync.remote_timeout", "cluster_name",
	}
	values, err := h.Settings(ctx, names...)
	if err != nil {
		return nil, err
	}
	if len(values) != len(names) {
		return nil, fmt.Errorf("asked for %d settings, got %d", len(names), len(values))
	}
	s := &Settings{SyncSequences: values[0] != "off", ClusterName: values[5]}
	for i, to := range []*time.Duration{1: &s.NaptimeMin, 2: &s.NaptimeMax, 3: &s.ConnectTimeout, 4: &s.RemoteTimeout} {
		if to == nil || values[i] == "" {
			continue
		}
		ms, err := strconv.Atoi(values[i])
		if err != nil {
			return nil, fmt.Errorf("parameter %s is not a number", names[i])
		}
		*to = time.Duration(ms) * time.Millisecond
	}
	if s.NaptimeMin <= 0 {
		s.NaptimeMin = defaultNaptimeMin
	}
	if s.NaptimeMax <= 0 {
		s.NaptimeMax = defaultNaptimeMax
	}
	s.NaptimeMax = max(s.NaptimeMax, s.NaptimeMin)
	return s, nil
}
