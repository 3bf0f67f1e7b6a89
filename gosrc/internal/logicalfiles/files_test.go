package logicalfiles

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
)

const mappingName = "map-5-4e3-0_16B3748-2bc-2bd"

func snapshot(body string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, snapshotMagic)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 5)
	b = binary.LittleEndian.AppendUint32(b, uint32(snapshotHeader+len(body)))
	b = append(b, body...)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func open(t *testing.T, mode os.FileMode) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, mode))
	for _, d := range []string{"snapshots", "mappings"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "pg_logical", d), 0o700))
	}
	s, err := Open(dir)
	require.NoError(t, err)
	return s, filepath.Join(dir, "pg_logical")
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

func TestNames(t *testing.T) {
	require.Equal(t, "0-3468DF0.snap", SnapshotName(0x3468DF0))
	require.Equal(t, "1A-0.snap", SnapshotName(0x1A<<32))

	m, err := ParseMappingName(mappingName)
	require.NoError(t, err)
	require.Equal(t, Mapping{Database: 5, Relation: 0x4e3, LSN: 0x16B3748, MappedXID: 700, CreateXID: 701}, m)
	require.Equal(t, mappingName, m.Name())
	high := Mapping{LSN: host.LSN(0xAB<<32 | 0xC)}
	require.Equal(t, "map-0-0-AB_C-0-0", high.Name())

	for _, name := range []string{
		"", "map", "map-5-4e3-0_16B3748-2bc", mappingName + "x", mappingName + "/../x", "../" + mappingName,
		"map-05-4e3-0_16B3748-2bc-2bd", "map-5-4E3-0_16B3748-2bc-2bd", "map-5-4e3-0_16b3748-2bc-2bd",
		"map-+5-4e3-0_16B3748-2bc-2bd", "map-5-4e3-0_16B3748-2bc-1ffffffff", " " + mappingName, "map-0x5-4e3-0_16B3748-2bc-2bd",
	} {
		_, err := ParseMappingName(name)
		require.Error(t, err, name)
	}
}

func FuzzMappingName(f *testing.F) {
	f.Add(mappingName)
	f.Add("map-5-4e3-0_16B3748-2bc-2bd/../../x")
	f.Fuzz(func(t *testing.T, name string) {
		m, err := ParseMappingName(name)
		if err == nil && (m.Name() != name || filepath.Base(name) != name) {
			t.Errorf("%q is taken for %q", name, m.Name())
		}
	})
}

func TestCheckSnapshot(t *testing.T) {
	good := snapshot("body")
	require.NoError(t, CheckSnapshot(good))
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		require.Error(t, CheckSnapshot(bad), "byte %d", i)
	}
	require.Error(t, CheckSnapshot(nil))
	require.Error(t, CheckSnapshot(good[:len(good)-1]))
	require.Error(t, CheckSnapshot(append(good, 0)))
}

func TestWriteSnapshot(t *testing.T) {
	for _, tt := range []struct{ dir, file os.FileMode }{{0o700, 0o600}, {0o750, 0o640}} {
		s, dir := open(t, tt.dir)
		path := filepath.Join(dir, "snapshots", "0-10.snap")
		require.False(t, s.HasSnapshot(16))
		require.NoError(t, os.WriteFile(path+".replsync.tmp", []byte("left by a crash"), 0o600))
		require.NoError(t, s.WriteSnapshot(16, snapshot("one")))
		require.True(t, s.HasSnapshot(16))
		require.Equal(t, string(snapshot("one")), read(t, path))
		before, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, tt.file, before.Mode().Perm())

		require.NoError(t, s.WriteSnapshot(16, snapshot("one")))
		after, err := os.Stat(path)
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after), "an equal file is left alone")

		require.NoError(t, s.WriteSnapshot(16, snapshot("two")))
		require.Equal(t, string(snapshot("two")), read(t, path))
		require.ErrorContains(t, s.WriteSnapshot(16, []byte("x")), "0-10.snap")
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, entries, 1, "nothing is left behind")
	}
}

func TestWriteMapping(t *testing.T) {
	s, dir := open(t, 0o700)
	path := filepath.Join(dir, "mappings", mappingName)
	require.NoError(t, s.WriteMapping(mappingName, []byte("abcd")))
	require.Equal(t, "abcd", read(t, path))

	require.NoError(t, s.WriteMapping(mappingName, []byte("abcdef")))
	require.Equal(t, "abcdef", read(t, path), "longer than what replay has written")

	before, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, s.WriteMapping(mappingName, []byte("abc")))
	require.Equal(t, "abcdef", read(t, path), "shorter: nothing is cut off")

	require.NoError(t, os.WriteFile(path, []byte("\x00\x00cdef"), 0o600))
	require.NoError(t, s.WriteMapping(mappingName, []byte("abcd")))
	require.Equal(t, "abcdef", read(t, path), "a hole is filled, the rest stays")
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "in place: replay may have it open")

	require.NoError(t, s.WriteMapping("map-0-0-0_0-0-0", nil))
	require.NoFileExists(t, filepath.Join(dir, "mappings", "map-0-0-0_0-0-0"))
	require.Error(t, s.WriteMapping("../mappings/"+mappingName, []byte("x")))
	require.NoError(t, s.WriteMapping("map-0-0-0_1-0-0", []byte{}))
	require.FileExists(t, filepath.Join(dir, "mappings", "map-0-0-0_1-0-0"))
}

func TestRecheck(t *testing.T) {
	s, dir := open(t, 0o700)
	require.NoError(t, s.WriteSnapshot(16, snapshot("one")))
	require.NoError(t, s.WriteMapping(mappingName, []byte("abcd")))
	lost, err := s.Recheck()
	require.NoError(t, err)
	require.Zero(t, lost)

	paths := []string{filepath.Join(dir, "snapshots", "0-10.snap"), filepath.Join(dir, "mappings", mappingName)}
	for _, path := range paths {
		require.NoError(t, os.Remove(path))
	}
	lost, err = s.Recheck()
	require.NoError(t, err)
	require.Equal(t, 2, lost)
	require.Equal(t, string(snapshot("one")), read(t, paths[0]))
	require.Equal(t, "abcd", read(t, paths[1]))

	s.Forget()
	require.NoError(t, os.Remove(paths[0]))
	lost, err = s.Recheck()
	require.NoError(t, err)
	require.Zero(t, lost)
}

func TestOpenNothing(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "nowhere"))
	require.Error(t, err)
}
