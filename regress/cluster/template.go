package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

var initdbArgs = []string{"--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"}

// initDataDir makes a data directory by copying a template, which takes a
// tenth of the time of initdb. The templates are kept in REPLSYNC_CACHE.
func (in *Install) initDataDir(base, dataDir string) error {
	template, err := in.template(base)
	if err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", "--reflink=auto", template, dataDir).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return in.newSystemIdentifier(base, dataDir)
}

// template returns the directory of the template of this version, and makes it
// the first time.
func (in *Install) template(base string) (string, error) {
	sum := sha256.Sum256([]byte(fmt.Sprint(in.version, in.BinDir, in.Root, in.uid, in.gid, initdbArgs)))
	dir := filepath.Join(cacheDir(), "templates", fmt.Sprintf("%d-%s", in.Major, hex.EncodeToString(sum[:6])))
	if exists(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if exists(dir) {
		return dir, nil
	}
	// initdb runs where the server's root can see it; the result is moved
	// under its name only when it is complete.
	work, err := os.MkdirTemp(base, "initdb-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.Chown(work, in.uid, in.gid); err != nil {
		return "", err
	}
	made := filepath.Join(work, "data")
	cmd := in.command(work, base, "initdb", append([]string{"-D", made}, initdbArgs...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb of %v: %w\n%s", in, err, out)
	}
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return "", err
	}
	if out, err := exec.Command("cp", "-a", made, partial).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cp: %w: %s", err, out)
	}
	return dir, os.Rename(partial, dir)
}

// newSystemIdentifier gives a copied data directory a system identifier of its
// own, as every server that was not made from another one has. It does what
// pg_createsubscriber does: change the control file, then start new WAL.
func (in *Install) newSystemIdentifier(base, dataDir string) error {
	path := filepath.Join(dataDir, "global", "pg_control")
	control, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := replaceSystemIdentifier(control, rand.Uint64()>>1); err != nil {
		return err
	}
	if err := os.WriteFile(path, control, 0o600); err != nil {
		return err
	}
	if out, err := in.command(dataDir, base, "pg_resetwal", "-D", dataDir).CombinedOutput(); err != nil {
		return fmt.Errorf("pg_resetwal: %w\n%s", err, out)
	}
	return nil
}

// replaceSystemIdentifier writes id over the identifier, the first field of a
// control file, and renews the checksum. The checksum is the last field, so its
// place differs between versions: it is where the value equals the checksum of
// everything before it.
func replaceSystemIdentifier(control []byte, id uint64) error {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	for at := 128; at+4 <= len(control) && at < 1024; at += 4 {
		if crc32.Checksum(control[:at], castagnoli) == binary.NativeEndian.Uint32(control[at:]) {
			binary.NativeEndian.PutUint64(control, id)
			binary.NativeEndian.PutUint32(control[at:], crc32.Checksum(control[:at], castagnoli))
			return nil
		}
	}
	return errors.New("no checksum found in pg_control")
}
