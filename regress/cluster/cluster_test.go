package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// each runs a test on every version.
func each(t *testing.T, f func(t *testing.T, major int)) {
	for _, major := range Versions(t) {
		t.Run(strconv.Itoa(major), func(t *testing.T) { f(t, major) })
	}
}

func TestFailover(t *testing.T) {
	each(t, func(t *testing.T, major int) {
		primary := New(t, major)
		require.Equal(t, major, QueryOne[int](t, primary, "select current_setting('server_version_num')::int / 10000"))
		standby := primary.Standby(t)
		primary.Exec(t, "create table t (id int primary key, v text); insert into t values (1, 'one')")
		primary.WaitReplayed(t, standby)
		primary.WaitFeedback(t, standby)
		require.Equal(t, "one", QueryOne[string](t, standby, "select v from t where id = $1", 1))
		require.True(t, primary.Slots(t)[standby.Slot].Active)
		require.NotZero(t, standby.WorkerPID(t, "walreceiver"))

		primary.Kill9(t)
		require.False(t, primary.Running())
		require.Empty(t, primary.Processes())
		standby.Promote(t)
		standby.Exec(t, "insert into t values (2, 'two')")

		primary.Start(t)
		require.Equal(t, []int{1}, Query[int](t, primary, "select id from t order by id"))
		primary.Restart(t)
		primary.Stop(t, Immediate)
	})
}

func TestConsumer(t *testing.T) {
	for _, plugin := range []string{"pgoutput", "test_decoding"} {
		t.Run(plugin, func(t *testing.T) {
			each(t, func(t *testing.T, major int) { testConsumer(t, major, plugin) })
		})
	}
}

func testConsumer(t *testing.T, major int, plugin string) {
	s := New(t, major, Setting("max_prepared_transactions", 5))
	s.Exec(t, "create database app")
	app := s.DB("app")
	app.Exec(t, `create table t (id int primary key, v text); create publication p for all tables`)
	app.CreateSlot(t, "rs", SlotOptions{Plugin: plugin, TwoPhase: true, Failover: major >= 17})
	require.Equal(t, plugin, s.Slots(t)["rs"].Plugin)
	c := NewConsumer(t, ConsumerConfig{Slot: "rs", Database: "app", Plugin: plugin, Publication: "p", TwoPhase: true})
	c.Start(t, s)
	app.Exec(t, `insert into t values (1, 'it''s'), (2, null)`)
	app.Exec(t, `update t set v = 'two' where id = 2; delete from t where id = 1`)
	app.Exec(t, `begin; insert into t values (3, 'x'); prepare transaction 'g1'`)
	app.Exec(t, `commit prepared 'g1'`)
	c.WaitValues(t, "public.t", "id", "1", "2", "3")
	c.WaitReceived(t, "the commit of the prepared transaction", func(received []Tx) bool {
		return received[len(received)-1].Kind == "commit prepared" && received[len(received)-1].GID == "g1"
	})
	var got []string
	for _, change := range c.Changes() {
		got = append(got, change.String())
	}
	require.Equal(t, []string{"insert public.t id=1 v=it's", "insert public.t id=2", "update public.t id=2 v=two",
		"delete public.t id=1", "insert public.t id=3 v=x"}, got)
	c.WaitConfirmed(t, s)

	// It goes on where it was.
	s.Kill9(t)
	Eventually(t, DefaultDeadline, "the stream to end", func() bool {
		up, err := c.Streaming()
		return !up && err != nil
	})
	s.Start(t)
	c.Start(t, s)
	app.Exec(t, "insert into t values (4, 'y')")
	c.WaitValues(t, "public.t", "id", "1", "2", "3", "4")
}

func TestConsumerWithoutConfirming(t *testing.T) {
	s := New(t, Versions(t)[0])
	s.Exec(t, "create table t (id int)")
	s.CreateSlot(t, "rs", SlotOptions{Plugin: "test_decoding"})
	start := *s.Slots(t)["rs"].ConfirmedFlushLSN
	c := NewConsumer(t, ConsumerConfig{Slot: "rs", Plugin: "test_decoding", Manual: true, FromSlot: true})
	c.Start(t, s)
	s.Exec(t, "insert into t values (1)")
	c.WaitValues(t, "public.t", "id", "1")
	c.Stop()
	require.Equal(t, start, *s.Slots(t)["rs"].ConfirmedFlushLSN)
	c.Start(t, s)
	c.WaitValues(t, "public.t", "id", "1", "1")
	c.Confirm(c.Position())
	c.WaitConfirmed(t, s)
}

func TestSettings(t *testing.T) {
	s := New(t, Versions(t)[0], Name("conf"), Setting("work_mem", "5MB"), HBA("host secret all all reject"))
	require.Equal(t, "5MB", QueryOne[string](t, s, "show work_mem"))
	require.Equal(t, s.Name, QueryOne[string](t, s, "show cluster_name"))
	s.Set(t, "work_mem", "6MB")
	require.Equal(t, "6MB", QueryOne[string](t, s, "show work_mem"))
	s.Unset(t, "work_mem")
	require.Equal(t, "5MB", QueryOne[string](t, s, "show work_mem"))
	s.Exec(t, "create database secret")
	_, err := s.DB("secret").TryConnect(context.Background())
	require.ErrorContains(t, err, "rejects")
	require.Equal(t, "1\n2", s.PSQL(t, "select 1; select 2;"))
	mark := s.LogMark()
	s.Exec(t, "do $$ begin raise log 'a line for the test'; end $$")
	s.WaitLog(t, mark, "a line for the test")
	require.Equal(t, LSN(0x1600000A0), QueryOne[LSN](t, s, "select $1::pg_lsn", LSN(0x1600000A0)))

	s.Stop(t, Fast)
	s.AppendConf(t, map[string]string{"shared_preload_libraries": "no_such_library"})
	require.ErrorContains(t, s.TryStart(), "no_such_library")
}

func TestSystemIdentifier(t *testing.T) {
	const identifier = "select system_identifier from pg_control_system()"
	each(t, func(t *testing.T, major int) {
		a, b := New(t, major), New(t, major)
		standby := a.Standby(t)
		require.NotEqual(t, QueryOne[int64](t, a, identifier), QueryOne[int64](t, b, identifier))
		require.Equal(t, QueryOne[int64](t, a, identifier), QueryOne[int64](t, standby, identifier))
	})
}

func TestFreeze(t *testing.T) {
	s := New(t, Versions(t)[0])
	conn := s.Connect(t)
	s.Freeze(t)
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select 1")
		answered <- err
	}()
	Never(t, 200*time.Millisecond, "a frozen server answers", func() bool { return len(answered) > 0 })
	s.Thaw(t)
	require.NoError(t, <-answered)
}

// A server starts although shared memory of its killed processes goes only a moment after them.
func TestSharedMemoryLeft(t *testing.T) {
	each(t, func(t *testing.T, major int) {
		s := New(t, major)
		content, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
		require.NoError(t, err)
		words := strings.Fields(strings.Split(string(content), "\n")[6])
		require.Len(t, words, 2, "key and id")
		id, err := strconv.Atoi(words[1])
		require.NoError(t, err)
		address, _, errno := syscall.Syscall(syscall.SYS_SHMAT, uintptr(id), 0, 0)
		require.Zero(t, errno)
		s.Kill9(t)
		mark := s.LogMark()
		detached := make(chan syscall.Errno, 1)
		go func() {
			_ = poll(DefaultDeadline, func() bool { return strings.Contains(s.LogSince(mark), "pre-existing shared memory block") })
			_, _, errno := syscall.Syscall(syscall.SYS_SHMDT, address, 0, 0)
			detached <- errno
		}()
		s.Start(t)
		require.Zero(t, <-detached)
	})
}

func TestPeers(t *testing.T) {
	timesOut := func(address string, dial, read time.Duration) {
		t.Helper()
		conn, err := net.DialTimeout("tcp", address, dial)
		if err == nil {
			defer conn.Close()
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(read)))
			_, err = conn.Read(make([]byte, 1))
		}
		var netErr net.Error
		require.ErrorAs(t, err, &netErr)
		require.True(t, netErr.Timeout(), "%v", err)
	}
	timesOut(SYNDropper(t), 200*time.Millisecond, 0)
	timesOut(Mute(t), time.Second, 200*time.Millisecond)
	_, err := net.Dial("tcp", Refused(t))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

func TestProxy(t *testing.T) {
	s := New(t, Versions(t)[0])
	p := s.Proxy(t)
	connString := s.ConnString() + fmt.Sprintf(" port=%d", p.Port)
	conn, err := pgx.Connect(context.Background(), connString)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	p.Freeze()
	answered := make(chan error, 1)
	go func() { answered <- conn.Ping(context.Background()) }()
	Never(t, 100*time.Millisecond, "an answer through a frozen proxy", func() bool { return len(answered) > 0 })
	p.Thaw()
	require.NoError(t, <-answered)
	p.Cut()
	require.Error(t, conn.Ping(context.Background()))
	p.Refuse(true)
	_, err = pgx.Connect(context.Background(), connString)
	require.Error(t, err)
	p.Refuse(false)
	again, err := pgx.Connect(context.Background(), connString)
	require.NoError(t, err)
	require.NoError(t, again.Close(context.Background()))
}

func TestTLS(t *testing.T) {
	s := New(t, Versions(t)[0], HBA("hostssl secure all all cert"))
	ca := s.EnableTLS(t, NewAuthority(t))
	s.Exec(t, "create database secure")
	verified := s.With("sslmode=verify-full sslrootcert=" + ca)
	require.True(t, QueryOne[bool](t, verified, "select ssl from pg_stat_ssl where pid = pg_backend_pid()"))
	_, err := s.DB("secure").With("sslmode=verify-full sslrootcert=" + ca).TryConnect(context.Background())
	require.Error(t, err)
}

// A test process that is killed takes its servers with it, and the next one
// removes the files.
func TestKilledTestProcess(t *testing.T) {
	const env = "REPLSYNC_TEST_TO_BE_KILLED"
	major := Versions(t)[len(Versions(t))-1]
	if os.Getenv(env) != "" {
		s := New(t, major)
		fmt.Printf("data directory %s\n", s.DataDir())
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledTestProcess$")
	cmd.Env = append(os.Environ(), env+"=1")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	var dataDir string
	for dataDir == "" && lines.Scan() {
		dataDir, _ = strings.CutPrefix(lines.Text(), "data directory ")
	}
	require.NotEmpty(t, processes(dataDir))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	Eventually(t, 10*time.Second, "its servers to be gone", func() bool { return len(processes(dataDir)) == 0 })
	require.DirExists(t, dataDir)
	sweep(filepath.Dir(filepath.Dir(filepath.Dir(dataDir))))
	require.NoDirExists(t, dataDir)
}

// recorder is a T that remembers a failure instead of failing.
type recorder struct {
	*testing.T
	failure string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	panic(r)
}

func failure(t *testing.T, f func(t T)) (message string) {
	r := &recorder{T: t}
	defer func() {
		if p := recover(); p != nil && p != any(r) {
			panic(p)
		}
		message = r.failure
	}()
	f(r)
	return ""
}

func TestEventually(t *testing.T) {
	require.Empty(t, failure(t, func(t T) { Eventually(t, time.Second, "it", func() bool { return true }) }))
	require.Contains(t, failure(t, func(t T) {
		Eventually(t, 20*time.Millisecond, "the moon", func() error { return errors.New("still day") })
	}), "waiting for the moon; last state: still day")
	require.Contains(t, failure(t, func(t T) {
		Never(t, 20*time.Millisecond, "it happened", func() bool { return true })
	}), "it happened")
}

func TestVersionsMissing(t *testing.T) {
	t.Setenv("PGVERSIONS", "9")
	require.Contains(t, failure(t, func(t T) { Versions(t) }), "PostgreSQL 9 is neither")
	t.Setenv("PUBLISHERS", "9")
	require.Contains(t, failure(t, func(t T) { Publishers(t) }), "PostgreSQL 9 is neither")
	t.Setenv("PUBLISHERS", "")
	require.Empty(t, Publishers(t))
}

func TestTestDecodingColumns(t *testing.T) {
	var d textDecoder
	_, err := d.decode(1, []byte("BEGIN 7"))
	require.NoError(t, err)
	_, err = d.decode(2, []byte(`table public.t: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 "a b"[character varying]:'x''y z' n[numeric]:null a[text[]]:'{1}'`))
	require.NoError(t, err)
	require.True(t, d.open())
	tx, err := d.decode(3, []byte("COMMIT 7"))
	require.NoError(t, err)
	require.Equal(t, LSN(3), tx.End)
	require.True(t, slices.Equal([]string{"update public.t a={1} a b=x'y z id=2"}, []string{tx.Changes[0].String()}), tx.Changes[0].String())
}

func TestStreamedTransactions(t *testing.T) {
	for _, major := range Versions(t) {
		s := New(t, major, Setting("logical_decoding_work_mem", "64kB"), Setting("max_prepared_transactions", 5))
		s.Exec(t, "create table t (id int primary key, pad text); create publication p for all tables")
		s.CreateSlot(t, "s", SlotOptions{TwoPhase: true})
		c := NewConsumer(t, ConsumerConfig{Slot: "s", Publication: "p", Streaming: true, TwoPhase: true})
		c.Start(t, s)
		insert := func(first, last int) string {
			return fmt.Sprintf("insert into t select g, repeat('x', 100) from generate_series(%d, %d) g;", first, last)
		}
		s.Exec(t, "begin;"+insert(1, 2000)+"savepoint a;"+insert(2001, 4000)+"rollback to a;"+insert(2001, 2500)+"commit")
		s.Exec(t, "begin;"+insert(3001, 5000)+"prepare transaction 'g'")
		s.Exec(t, "commit prepared 'g'")
		c.WaitReceived(t, "two large transactions", func(txs []Tx) bool { return len(txs) == 3 })
		txs := c.Take()
		require.Empty(t, c.Received())
		require.Equal(t, []string{"commit", "prepare", "commit prepared"}, []string{txs[0].Kind, txs[1].Kind, txs[2].Kind})
		require.Len(t, txs[0].Changes, 2500)
		require.Equal(t, "2500", txs[0].Changes[2499].Row["id"])
		require.Len(t, txs[1].Changes, 2000)
		require.Equal(t, "g", txs[1].GID)
		require.NotZero(t, QueryOne[int64](t, s, "select stream_txns from pg_stat_replication_slots where slot_name = 's'"))
	}
}
