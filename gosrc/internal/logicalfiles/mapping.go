package logicalfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// WriteMapping writes the mapping file of that name with at least that content; it is durable after Sync. A nil content is
// a file that is no longer there.
func (s *Store) WriteMapping(name string, content []byte) error {
	if _, err := ParseMappingName(name); err != nil {
		return err
	}
	if content == nil {
		return nil
	}
	path := filepath.Join(s.mappings, name)
	s.recent[path] = content
	if err := s.merge(path, content); err != nil {
		return fmt.Errorf("could not write mapping file %q: %w", name, err)
	}
	return nil
}

// merge puts content at the start of a file, in place.
//
// Replay may write to the same file at the same time: each record truncates it to the record's offset and writes the
// record's part there (heap_xlog_logical_rewrite, rewriteheap.c). The file only grows and its bytes are the same
// everywhere, so bytes written here are never wrong, while renaming another file into place, or truncating, could lose
// what replay has just written. What replay cuts off it writes again; if WAL ends before that, the rewrite never committed here.
func (s *Store) merge(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, s.mode)
	if err != nil {
		return err
	}
	same, err := beginsWith(file, content)
	if err == nil && !same {
		_, err = file.WriteAt(content, 0)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	s.unsynced[filepath.Dir(path)] = true
	return nil
}

func beginsWith(file io.ReaderAt, content []byte) (bool, error) {
	have := make([]byte, len(content))
	n, err := file.ReadAt(have, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return n == len(content) && bytes.Equal(have, content), nil
}
