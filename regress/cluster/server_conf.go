package cluster

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func (o *options) config() map[string]string {
	settings := maps.Clone(o.settings)
	if len(o.preload) > 0 {
		settings["shared_preload_libraries"] = strings.Join(o.preload, ",")
	}
	return settings
}

// AppendConf appends parameters to postgresql.conf, without a reload.
func (s *Server) AppendConf(t T, settings map[string]string) {
	t.Helper()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = %s\n", name, quoteConf(settings[name]))
	}
	f, err := os.OpenFile(filepath.Join(s.DataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer f.Close()
	if _, err := f.WriteString(b.String()); err != nil {
		t.Fatalf("%v", err)
	}
}

// Set changes a parameter with ALTER SYSTEM and reloads. More than one value is
// for the parameters whose elements are quoted one by one, such as
// shared_preload_libraries.
func (s *Server) Set(t T, name string, values ...string) {
	t.Helper()
	quoted := make([]string, len(values))
	for i, value := range values {
		quoted[i] = QuoteLiteral(value)
	}
	s.Exec(t, "alter system set "+name+" = "+strings.Join(quoted, ", "))
	s.Reload(t)
}

// Unset takes back what Set did.
func (s *Server) Unset(t T, name string) {
	t.Helper()
	s.Exec(t, "alter system reset "+name)
	s.Reload(t)
}

// Reload makes the server read its configuration, and waits until new sessions
// see it.
func (s *Server) Reload(t T) {
	t.Helper()
	const loaded = "select pg_conf_load_time()"
	before := QueryOne[time.Time](t, s, loaded)
	s.Signal(t, syscall.SIGHUP)
	Eventually(t, DefaultDeadline, s.Name+" to reload its configuration", func() error {
		now, err := TryQueryOne[time.Time](s, loaded)
		if err == nil && !now.After(before) {
			err = fmt.Errorf("pg_conf_load_time() is %v", now)
		}
		return err
	})
}
