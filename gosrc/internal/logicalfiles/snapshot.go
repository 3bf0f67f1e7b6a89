package logicalfiles

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/replsync/replsync/gosrc/internal/host"
)

// SnapBuildOnDisk (snapbuild.c; snapbuild_internal.h from 18 on): magic, checksum, version, length, then the builder.
const (
	snapshotMagic      = 0x51A1E001
	snapshotHeader     = 16
	snapshotChecksumAt = 4
	snapshotVersionAt  = 8 // the checksum covers what comes from here on
	snapshotLengthAt   = 12
)

// CheckSnapshot tells what is wrong with the content of a snapshot file. SnapBuildRestoreContents would fail on it in the
// decoding session, after a promotion.
func CheckSnapshot(content []byte) error {
	le := binary.LittleEndian
	switch {
	case len(content) <= snapshotHeader:
		return errors.New("it is too short")
	case le.Uint32(content) != snapshotMagic:
		return fmt.Errorf("it has wrong magic number %#x", le.Uint32(content))
	case uint64(le.Uint32(content[snapshotLengthAt:])) != uint64(len(content)):
		return fmt.Errorf("it has %d bytes instead of %d", len(content), le.Uint32(content[snapshotLengthAt:]))
	case crc32.Checksum(content[snapshotVersionAt:], crc32.MakeTable(crc32.Castagnoli)) !=
		le.Uint32(content[snapshotChecksumAt:]):
		return errors.New("its checksum is wrong")
	}
	return nil
}

// HasSnapshot tells whether a snapshot file is here.
func (s *Store) HasSnapshot(lsn host.LSN) bool {
	_, err := os.Stat(filepath.Join(s.snapshots, SnapshotName(lsn)))
	return err == nil
}

// WriteSnapshot writes the snapshot file at lsn; it is durable after Sync.
func (s *Store) WriteSnapshot(lsn host.LSN, content []byte) error {
	name := SnapshotName(lsn)
	if err := CheckSnapshot(content); err != nil {
		return fmt.Errorf("snapshot file %q of the primary cannot be used: %w", name, err)
	}
	path := filepath.Join(s.snapshots, name)
	s.recent[path] = content
	if err := s.replace(path, content); err != nil {
		return fmt.Errorf("could not write snapshot file %q: %w", name, err)
	}
	return nil
}

// replace writes a file under another name, so that no reader and no crash ever meets half of it. An equal file is made
// durable only: the server may have written it a moment ago. Its name is left to Sync.
func (s *Store) replace(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return s.syncFile(path)
	}
	// Checkpoints remove what begins like a snapshot and is old (CheckPointSnapBuild); a leftover goes with it.
	tmp := path + ".replsync.tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, s.mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	s.unsynced[filepath.Dir(path)] = true
	return nil
}

func (s *Store) syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	s.unsynced[filepath.Dir(path)] = true
	return nil
}
