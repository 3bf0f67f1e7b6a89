package cluster

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed launch.sh
var launchScript string

// A workspace is the directory of one test process, shared by its servers. It
// exists while one of them does.
type workspace struct {
	mu    sync.Mutex
	users int
	dir   string
	lock  *os.File
	names map[string]int
}

var space workspace

const workspacePrefix = "replsync-"

// enter makes the directory unless it is there, and returns it.
func (w *workspace) enter() (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users == 0 {
		if err := w.create(); err != nil {
			return "", err
		}
	}
	w.users++
	return w.dir, nil
}

func (w *workspace) create() error {
	parent := os.Getenv("REPLSYNC_TMP")
	if parent == "" {
		parent = "/var/tmp"
	}
	// A directory whose lock is not held yet must not look like a stale one to
	// a process that starts at the same time.
	gate, err := os.OpenFile(filepath.Join(parent, ".replsync.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer gate.Close()
	if err := syscall.Flock(int(gate.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	sweep(parent)
	dir, err := os.MkdirTemp(parent, workspacePrefix)
	if err != nil {
		return err
	}
	// The servers' users need to pass.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return err
	}
	w.dir, w.lock, w.names = dir, lock, map[string]int{}
	return nil
}

// leave removes the directory when its last user leaves.
func (w *workspace) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users--; w.users > 0 {
		return
	}
	if !keep() {
		removeWorkspace(w.dir)
	}
	w.lock.Close()
}

// name returns a name that no other server of this process has.
func (w *workspace) name(prefix string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[prefix]++
	return prefix + strconv.Itoa(w.names[prefix])
}

func keep() bool { return os.Getenv("REPLSYNC_KEEP") != "" }

// sweep removes the directories of test processes that died before they could:
// nobody holds the lock in them any more. Directories that were kept on purpose
// go with them.
func sweep(parent string) {
	stale, _ := filepath.Glob(filepath.Join(parent, workspacePrefix+"*", "lock"))
	for _, path := range stale {
		lock, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			dir := filepath.Dir(path)
			data, _ := filepath.Glob(filepath.Join(dir, "*", "data"))
			var left error
			for _, d := range data {
				left = errors.Join(left, killAll(d))
			}
			// Else the next sweep tries again.
			if left == nil {
				removeWorkspace(dir)
			}
		}
		lock.Close()
	}
}

// removeWorkspace removes the directory, and the empty mount points of it that
// are left in the roots.
func removeWorkspace(dir string) {
	os.RemoveAll(dir)
	points, _ := filepath.Glob(filepath.Join(rootsDir(), "*", dir))
	for _, point := range points {
		// Not RemoveAll: should anything be there, it is not ours.
		os.Remove(point)
	}
}

// command returns a command that runs one of the installation's programs as
// its user. base is a directory to make visible in the root, and dir the
// directory to run in. The child gets a small environment of its own: nothing
// of the caller's (PGHOST, PGOPTIONS, a locale) can leak into a server.
func (in *Install) command(dir, base, program string, args ...string) *exec.Cmd {
	return in.launch(dir, base, "", program, args...)
}

func (in *Install) launch(dir, base, deathSignal, program string, args ...string) *exec.Cmd {
	if !strings.Contains(program, "/") {
		program = filepath.Join(in.BinDir, program)
	}
	argv := []string{"-c", launchScript, "launch.sh",
		in.Root, base, strconv.Itoa(in.uid), strconv.Itoa(in.gid), deathSignal, dir, program}
	argv = append(argv, args...)
	var cmd *exec.Cmd
	if in.Root == "" {
		cmd = exec.Command("/bin/sh", argv...)
	} else {
		cmd = exec.Command("unshare", append([]string{"--mount", "--", "/bin/sh"}, argv...)...)
	}
	cmd.Env = []string{
		"PATH=" + in.BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/var/lib/postgresql", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "LC_MESSAGES=C", "PGCONNECT_TIMEOUT=10",
	}
	// ^C at a terminal is for the test process alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// processes returns the processes that run in the data directory: the
// postmaster and its children, or what is left of them. PostgreSQL's processes
// all have their data directory as working directory, which identifies them
// also across mount namespaces and when postmaster.pid is gone.
func processes(dataDir string) []int {
	want, err := os.Stat(dataDir)
	if err != nil {
		return nil
	}
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if runsIn(pid, want) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// runsIn tells whether a process has the directory as its working directory. One that dies keeps its memory, and what
// it shares of it, until its last thread is gone, while its first one may have no directory any more.
func runsIn(pid int, dir os.FileInfo) bool {
	cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err == nil {
		return os.SameFile(dir, cwd)
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/cwd", pid))
	return slices.ContainsFunc(threads, func(thread string) bool {
		cwd, err := os.Stat(thread)
		return err == nil && os.SameFile(dir, cwd)
	})
}

// killAll kills every process that runs in the data directory and waits until
// none is left.
func killAll(dataDir string) error {
	return poll(10*time.Second, func() error {
		pids := processes(dataDir)
		for _, pid := range pids {
			// Those that were stopped die of this signal too.
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(pids) > 0 {
			return fmt.Errorf("processes %v are still there", pids)
		}
		return nil
	})
}

// chown gives a tree to the installation's user.
func (in *Install) chown(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, in.uid, in.gid)
	})
}
