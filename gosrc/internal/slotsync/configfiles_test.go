package slotsync

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfigPending(t *testing.T) {
	old, reloaded, edited := time.Unix(1000, 0), time.Unix(2000, 0), time.Unix(3000, 0)
	write := func(t *testing.T, path, content string, at time.Time) string {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		require.NoError(t, os.Chtimes(path, at, at))
		return path
	}
	tests := []struct {
		name    string
		setup   func(t *testing.T, dir string)
		pending bool
	}{
		{"nothing", func(*testing.T, string) {}, false},
		{"main file", func(t *testing.T, dir string) { write(t, dir+"/postgresql.conf", "", edited) }, true},
		{"auto file", func(t *testing.T, dir string) { write(t, dir+"/data/postgresql.auto.conf", "", edited) }, true},
		{"no auto file", func(t *testing.T, dir string) { os.Remove(dir + "/data/postgresql.auto.conf") }, false},
		{"no main file", func(t *testing.T, dir string) { os.Remove(dir + "/postgresql.conf") }, true},
		{"include", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "a = 1\ninclude 'sub/x.conf'\n", old)
			write(t, dir+"/sub/x.conf", "", edited)
		}, true},
		{"include, old", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "include = 'sub/x.conf' # all\n", old)
			write(t, dir+"/sub/x.conf", "", old)
		}, false},
		{"include in an include", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "include sub/x.conf\n", old)
			write(t, dir+"/sub/x.conf", "INCLUDE 'y''s.conf'", old)
			write(t, dir+"/sub/y's.conf", "", edited)
		}, true},
		{"include of nothing", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "include 'x.conf'", old)
		}, true},
		{"include_if_exists of nothing", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "include_if_exists 'x.conf'", old)
		}, false},
		{"comment", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "#include 'x.conf'\nincluded = 1", old)
		}, false},
		{"include_dir", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "include_dir = 'conf.d'", old)
			write(t, dir+"/conf.d/x.conf", "", edited)
			require.NoError(t, os.Chtimes(dir+"/conf.d", old, old))
		}, true},
		{"include_dir, other files", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "include_dir = 'conf.d'", old)
			write(t, dir+"/conf.d/x.txt", "", edited)
			write(t, dir+"/conf.d/.x.conf", "", edited)
			require.NoError(t, os.Chtimes(dir+"/conf.d", old, old))
		}, false},
		{"include_dir, file removed", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "include_dir = 'conf.d'", old)
			require.NoError(t, os.MkdirAll(dir+"/conf.d", 0o700))
			require.NoError(t, os.Chtimes(dir+"/conf.d", edited, edited))
		}, true},
		{"endless", func(t *testing.T, dir string) {
			write(t, dir+"/postgresql.conf", "include 'postgresql.conf'", old)
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/postgresql.conf", "port = 1\n", old)
			write(t, dir+"/data/postgresql.auto.conf", "", old)
			tt.setup(t, dir)
			require.Equal(t, tt.pending, configPending(dir+"/postgresql.conf", dir+"/data", reloaded))
		})
	}
	require.True(t, configPending("", "", reloaded), "unknown counts as pending")
}
