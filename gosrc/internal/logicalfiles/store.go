package logicalfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Store is the pg_logical directory of a data directory. It is not safe for concurrent use.
type Store struct {
	snapshots string
	mappings  string
	mode      fs.FileMode

	// recent files, and what was written: see Recheck.
	recent map[string][]byte

	unsynced map[string]bool // directories with names that a crash may take back
}

// Open looks at a data directory. Files get the mode that the server gives its own: readable by the group if the data
// directory is (GetDataDirectoryCreatePerm, file_perm.c).
func Open(dataDir string) (*Store, error) {
	info, err := os.Stat(dataDir)
	if err != nil {
		return nil, fmt.Errorf("could not access the data directory: %w", err)
	}
	s := &Store{
		snapshots: filepath.Join(dataDir, "pg_logical", "snapshots"),
		mappings:  filepath.Join(dataDir, "pg_logical", "mappings"),
		mode:      0o600,
		recent:    map[string][]byte{},
		unsynced:  map[string]bool{},
	}
	if info.Mode().Perm()&0o050 == 0o050 {
		s.mode = 0o640
	}
	return s, nil
}

// Forget ends the care of Recheck for the files written until now.
func (s *Store) Forget() { clear(s.recent) }

// Recheck writes again what has vanished since it was written, and returns how many files that were.
//
// A restartpoint removes files by a limit that it took before it looks at the first file (CheckPointSnapBuild,
// CheckPointLogicalRewriteHeap). One that was under way when the reservation was made may remove what was written under
// that reservation; the next one will not.
func (s *Store) Recheck() (int, error) {
	lost := 0
	for path, content := range s.recent {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return lost, err
			}
			continue
		}
		var err error
		if filepath.Dir(path) == s.snapshots {
			err = s.replace(path, content)
		} else {
			err = s.merge(path, content)
		}
		if err != nil {
			return lost, err
		}
		lost++
	}
	return lost, s.Sync()
}

// Sync makes the names of all files durable that were written. What they hold is already.
func (s *Store) Sync() error {
	for dir := range s.unsynced {
		if err := syncDir(dir); err != nil {
			return fmt.Errorf("could not fsync directory %q: %w", filepath.Base(dir), err)
		}
		delete(s.unsynced, dir)
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	return errors.Join(err, dir.Close())
}
