package regress_test

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// The tests of this file pin what the boundary between PostgreSQL's C and the Go runtime rests on. The shim
// and the core are the same on every version, so most of them run on the first version only.

const slotWorker = `replsync slot worker`

// ownSignals are those that PostgreSQL handles, or reads from a signalfd (SIGURG, for the latch).
var ownSignals = []syscall.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1,
	syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGTERM, syscall.SIGURG,
}

// workerWithCore returns a standby and its slot worker, which has loaded the core.
func workerWithCore(t *testing.T, opts ...cluster.Option) (*cluster.Server, int) {
	t.Helper()
	primary := cluster.New(t, cluster.Versions(t)[0], cluster.Preload("replsync"))
	primary.Exec(t, "CREATE EXTENSION replsync")
	standby := primary.Standby(t, opts...)
	primary.WaitReplayed(t, standby)
	cluster.Eventually(t, cluster.DefaultDeadline, "the slot worker's first cycle", func() bool {
		return cluster.QueryOne[int](t, standby, "SELECT count(*) FROM replsync.worker_status WHERE cycles > 0") == 1
	})
	return standby, waitForCore(t, standby)
}

// waitForCore waits until the slot worker has loaded the core.
func waitForCore(t *testing.T, standby *cluster.Server) int {
	t.Helper()
	var pid int
	cluster.Eventually(t, cluster.DefaultDeadline, "the slot worker to load the core", func() bool {
		pid = standby.FindWorker(slotWorker)
		return pid != 0 && len(threads(t, pid)) > 1
	})
	return pid
}

func threads(t testing.TB, pid int) []string {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	require.NoError(t, err)
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

// procField reads one line of a status file in /proc.
func procField(t *testing.T, path, name string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^` + name + `:\s*(\S+)`).FindSubmatch(b)
	require.NotNil(t, m, "%s has no %s", path, name)
	return string(m[1])
}

func TestGoThreadsLeaveTheServersSignalsAlone(t *testing.T) {
	_, pid := workerWithCore(t)
	ids := threads(t, pid)
	require.Greater(t, len(ids), 1, "the core is not loaded")
	for _, id := range ids {
		if id == strconv.Itoa(pid) {
			continue
		}
		assertBlocked(t, procField(t, fmt.Sprintf("/proc/%d/task/%s/status", pid, id), "SigBlk"), "thread "+id)
	}
}

// assertBlocked looks for ownSignals in a mask, as the kernel prints it.
func assertBlocked(t *testing.T, mask, who string) {
	t.Helper()
	blocked, err := strconv.ParseUint(mask, 16, 64)
	require.NoError(t, err)
	for _, s := range ownSignals {
		assert.NotZero(t, blocked&(1<<(s-1)), "%s does not block %v", who, s)
	}
}

func TestEveryHandlerRunsOnTheAlternateStack(t *testing.T) {
	server := selftest(t, "handlers")
	line := server.WaitLog(t, 0, `selftest handlers: .*`)
	assert.Contains(t, line, "selftest handlers: 0 without SA_ONSTACK of ")
	assert.NotContains(t, line, " of 0,", "no handler was looked at")
}

// The alternate stack is the second line: calls are made with the signals blocked.
func TestCallsIntoGoBlockTheServersSignals(t *testing.T) {
	server := selftest(t, "handlers")
	_, mask, _ := strings.Cut(server.WaitLog(t, 0, `selftest handlers: .*`), "blocked in a call: ")
	assertBlocked(t, strings.TrimSpace(mask), "a call")
}

func TestEveryLatchWakeUpArrives(t *testing.T) {
	standby, _ := workerWithCore(t, cluster.Setting("replsync.slot_naptime_min", "1h"),
		cluster.Setting("replsync.slot_naptime_max", "1h"))
	session := standby.Connect(t)
	for i := range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := session.Exec(ctx, "SELECT replsync.drop_slots('no_such_slot')")
		cancel()
		require.NoError(t, err, "wake-up %d was lost: the worker naps for an hour", i)
	}
}

func TestPostmasterAndBackendsHaveOneThread(t *testing.T) {
	standby, pid := workerWithCore(t)
	// A session that stays: the one that Exec uses has ended when the threads are counted.
	session := standby.Connect(t)
	_, err := session.Exec(t.Context(), "SELECT * FROM replsync.sync_slots()")
	require.NoError(t, err)
	assert.Equal(t, 1, tasks(t, int(session.PgConn().PID())), "the session's process")
	assert.Equal(t, 1, tasks(t, standby.PostmasterPID()), "postmaster")
	for _, p := range standby.Processes() {
		if p.PID != pid {
			// Those of other sessions may be ending, and then have none.
			assert.LessOrEqual(t, tasks(t, p.PID), 1, p.Title)
		}
	}
	assert.Greater(t, len(threads(t, pid)), 1)
}

func TestPrimaryLoadsNoCore(t *testing.T) {
	primary := cluster.New(t, cluster.Versions(t)[0], cluster.Preload("replsync"))
	pid := primary.WorkerPID(t, slotWorker)
	assert.Len(t, threads(t, pid), 1)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	require.NoError(t, err)
	assert.NotContains(t, string(maps), "replsync_core")
}

// installedLibrary opens a library as it was installed.
func installedLibrary(t *testing.T, name string) *elf.File {
	t.Helper()
	in, err := cluster.Find(cluster.Versions(t)[0])
	require.NoError(t, err)
	lib := filepath.Join(in.Root, filepath.Dir(in.BinDir), "lib")
	// Debian's directory, and that of an installation from source.
	f, err := elf.Open(filepath.Join(lib, name))
	if err != nil {
		f, err = elf.Open(filepath.Join(lib, "postgresql", name))
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestCoreExportsOneSymbolAndCannotBeUnloaded(t *testing.T) {
	core := installedLibrary(t, "replsync_core.so")
	symbols, err := core.DynamicSymbols()
	require.NoError(t, err)
	var exported []string
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			exported = append(exported, s.Name)
		}
	}
	assert.Equal(t, []string{"replsync_core"}, exported)

	// Without any flag of its kind an entry is not there.
	flags, err := core.DynValue(elf.DT_FLAGS)
	require.NoError(t, err)
	assert.True(t, len(flags) == 1 && flags[0]&uint64(elf.DF_SYMBOLIC) != 0, "linked without -Bsymbolic")
	flags, err = core.DynValue(elf.DT_FLAGS_1)
	require.NoError(t, err)
	assert.True(t, len(flags) == 1 && flags[0]&uint64(elf.DF_1_NODELETE) != 0, "linked without -z nodelete")
}

func TestPreloadedLibraryHasNoGo(t *testing.T) {
	library := installedLibrary(t, "replsync.so")
	symbols, err := library.DynamicSymbols()
	require.NoError(t, err)
	for _, s := range symbols {
		assert.NotRegexp(t, `^(_cgo|x_cgo|crosscall|runtime\.|pthread_create$)`, s.Name)
	}
	for _, s := range library.Sections {
		assert.NotContains(t, s.Name, "gopclntab")
	}
}

// A remote server that does not answer must not keep the worker from ending.
func TestWorkerEndsAtOnceWhateverThePrimaryDoes(t *testing.T) {
	peers := map[string]func(cluster.T) string{"SYN dropped": cluster.SYNDropper, "no answer": cluster.Mute}
	ends := map[string]func(t *testing.T, s *cluster.Server, pid int){
		"SIGTERM":        func(t *testing.T, _ *cluster.Server, pid int) { require.NoError(t, syscall.Kill(pid, syscall.SIGTERM)) },
		"fast stop":      func(t *testing.T, s *cluster.Server, _ int) { s.Signal(t, syscall.SIGINT) },
		"immediate stop": func(t *testing.T, s *cluster.Server, _ int) { s.Signal(t, syscall.SIGQUIT) },
	}
	standby, _ := workerWithCore(t, cluster.Setting("replsync.connect_timeout", "1h"))
	for peerName, peer := range peers {
		host, port, _ := strings.Cut(peer(t), ":")
		for endName, end := range ends {
			t.Run(peerName+"/"+endName, func(t *testing.T) {
				if !standby.Running() {
					standby.Start(t)
				}
				pid := waitForCore(t, standby)
				standby.Set(t, "replsync.primary_conninfo", fmt.Sprintf("host=%s port=%s user=postgres", host, port))
				waitForConnecting(t, pid, port)

				end(t, standby, pid)
				began := time.Now()
				cluster.Eventually(t, 20*time.Second, "the worker to end", func() bool {
					return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
				})
				assert.Less(t, time.Since(began), time.Second)
				if endName != "SIGTERM" {
					standby.WaitExit(t, cluster.DefaultDeadline)
				}
			})
		}
	}
}

// waitForConnecting waits until the process has a socket to the port.
func waitForConnecting(t *testing.T, pid int, port string) {
	t.Helper()
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	remote := fmt.Sprintf("0100007F:%04X", n)
	cluster.Eventually(t, cluster.DefaultDeadline, "the worker to connect to the peer", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
		if err != nil {
			return false
		}
		for line := range strings.Lines(string(b)) {
			// remote address, then state: 01 is established, 02 is SYN sent
			if f := strings.Fields(line); len(f) > 3 && f[2] == remote && (f[3] == "01" || f[3] == "02") {
				return true
			}
		}
		return false
	})
}

// selftest starts work of the core that only tests know.
func selftest(t *testing.T, argument string) *cluster.Server {
	t.Helper()
	server := cluster.New(t, cluster.Versions(t)[0], cluster.Preload("replsync"))
	server.Exec(t, "CREATE FUNCTION selftest_start(text) RETURNS integer LANGUAGE c AS 'replsync_selftest'")
	server.Exec(t, "SELECT selftest_start($1)", argument)
	return server
}

func TestMemoryStaysFlatOverErrors(t *testing.T) {
	server := selftest(t, "errors 10000")
	pid := server.WorkerPID(t, "replsync selftest")
	rounds := func(n int) int {
		line := server.WaitLog(t, 0, fmt.Sprintf(`selftest round %d: .*`, n))
		require.Contains(t, line, "10000 of 10000 failed, alive")
		anon := strings.TrimSuffix(procField(t, fmt.Sprintf("/proc/%d/status", pid), "RssAnon"), " kB")
		kb, err := strconv.Atoi(anon)
		require.NoError(t, err)
		return kb
	}
	again := func() { require.NoError(t, syscall.Kill(pid, syscall.SIGHUP)) }

	// The first rounds let Go's heap find its size.
	for n := range 3 {
		rounds(n)
		again()
	}
	before := rounds(3)
	for n := 4; n <= 6; n++ {
		again()
		rounds(n)
	}
	// A leak of 100 bytes an error would be 3 MB.
	assert.Less(t, rounds(6)-before, 3000, "kB more after 30000 errors")
}

func TestPanicsAreErrorsAndTheServerGoesOn(t *testing.T) {
	server := selftest(t, "panic")
	pid := server.WorkerPID(t, "replsync selftest")
	server.WaitLog(t, 0, `LOG:  selftest goroutine: internal error: .*nil pointer dereference`)
	server.WaitLog(t, 0, `WARNING:  internal error: selftest panic in the work`)
	mark := server.LogMark()
	server.WaitLog(t, mark, `LOG:  selftest goroutine: `) // the work began anew
	assert.Equal(t, pid, server.FindWorker("replsync selftest"))
	assert.NotContains(t, server.Log(), "terminated by signal")
}

func TestLowAddressSpaceIsAnErrorAndNoAbort(t *testing.T) {
	standby, pid := workerWithCore(t)
	postmaster := fmt.Sprintf("/proc/%d", standby.PostmasterPID())
	owner, err := os.Stat(postmaster)
	require.NoError(t, err)
	// Under half a gigabyte Go really aborts, with one it would still start.
	// As the server's user: root of a container may not do it.
	limit := exec.Command("prlimit", "--pid", filepath.Base(postmaster), "--as=536870912")
	id := owner.Sys().(*syscall.Stat_t)
	limit.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id.Uid, Gid: id.Gid}}
	out, err := limit.CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))

	standby.WaitLog(t, 0, `LOG:  address space limit of the server is too low for replsync`)
	assert.NotContains(t, standby.Log(), "terminated by signal")
	_, err = standby.TryExec(t.Context(), "SELECT * FROM replsync.sync_slots()")
	pgErr, ok := cluster.AsPgError(err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "53000", pgErr.Code)
	assert.Contains(t, pgErr.Hint, "Raise the limit")
	row := checkOf(t, failoverCheck(t, standby), "worker")
	require.False(t, *row.OK)
	assert.Contains(t, row.Hint, "Raise the limit")
}
