package cluster

import (
	"os"
	"path/filepath"
)

// WriteFile writes a file below the data directory, readable by the server
// alone. It appears whole: the server may act on it, and remove it, at once.
func (s *Server) WriteFile(t T, name, content string) {
	t.Helper()
	path := filepath.Join(s.DataDir(), name)
	tmp := path + ".tmp"
	err := os.WriteFile(tmp, []byte(content), 0o600)
	if err == nil {
		err = os.Chown(tmp, s.install.uid, s.install.gid)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// TempDir makes a directory that belongs to the server's user and is removed
// with the server.
func (s *Server) TempDir(t T) string {
	t.Helper()
	dir, err := os.MkdirTemp(s.dir, "tmp-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := os.Chown(dir, s.install.uid, s.install.gid); err != nil {
		t.Fatalf("%v", err)
	}
	return dir
}

// ReadFile reads a file below the data directory.
func (s *Server) ReadFile(t T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.DataDir(), name))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return string(content)
}

// GiveToServer makes the server's user the owner of everything below a
// directory.
func (s *Server) GiveToServer(dir string) error { return s.install.chown(dir) }
