package cluster

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Server is a PostgreSQL server and its data directory. Its methods for SQL
// use the database postgres as the superuser postgres; DB gives those of
// another database. Methods that take a T fail the test when they cannot do
// what they are for, and so must be called from the test's goroutine; those that
// start with Try may be called from any.
type Server struct {
	*Database

	// Name is the server's cluster_name.
	Name string
	// Major is the major version.
	Major int
	// Port is the TCP port on 127.0.0.1. It stays the same over restarts.
	Port int
	// Slot is the physical slot on the primary that a standby uses.
	Slot string

	install *Install
	base    string
	dir     string
	cmd     *exec.Cmd
	exited  chan struct{}
	exitErr error
}

// A StopMode is the way in which a server is shut down.
type StopMode syscall.Signal

// The modes of pg_ctl stop.
const (
	Smart     = StopMode(syscall.SIGTERM)
	Fast      = StopMode(syscall.SIGINT)
	Immediate = StopMode(syscall.SIGQUIT)
)

// New makes a server of the given major version and starts it. It is stopped
// and removed at the end of the test.
func New(t T, major int, opts ...Option) *Server {
	t.Helper()
	o := gather(opts)
	s := newServer(t, major, o, "primary")
	if err := s.install.initDataDir(s.base, s.DataDir()); err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	settings := map[string]string{
		"wal_level":                    "logical",
		"max_wal_senders":              "20",
		"max_replication_slots":        "20",
		"max_worker_processes":         "20",
		"hot_standby_feedback":         "on",
		"wal_receiver_status_interval": "1s",
		"wal_retrieve_retry_interval":  "200ms",
		"log_line_prefix":              "%m [%p] %b %q%a@%d ",
		"log_replication_commands":     "on",
		"shared_buffers":               "32MB",
		// A vacuum in the background would assign transaction ids and remove
		// rows when no test expects it.
		"autovacuum": "off",
	}
	if !o.fsync {
		settings["fsync"] = "off"
	}
	maps.Copy(settings, o.config())
	s.AppendConf(t, settings)
	hba := append(slices.Clone(o.hba),
		"local all all trust",
		"host all all 127.0.0.1/32 trust",
		"local replication all trust",
		"host replication all 127.0.0.1/32 trust")
	s.WriteFile(t, "pg_hba.conf", strings.Join(hba, "\n")+"\n")
	if !o.notStarted {
		s.Start(t)
	}
	return s
}

// newServer makes everything of a server but the data directory.
func newServer(t T, major int, o *options, defaultName string) *Server {
	t.Helper()
	install, err := Find(major)
	if err != nil {
		t.Fatalf("%v", err)
	}
	base, err := space.enter()
	if err != nil {
		t.Fatalf("%v", err)
	}
	name := o.name
	if name == "" {
		name = defaultName
	}
	name = space.name(name)
	s := &Server{Name: name, Major: major, install: install, base: base, dir: filepath.Join(base, name)}
	s.Database = &Database{server: s, name: "postgres"}
	t.Cleanup(func() { s.remove(t) })
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatalf("%v", err)
	}
	if err := os.Chown(s.dir, install.uid, install.gid); err != nil {
		t.Fatalf("%v", err)
	}
	if s.Port, err = freePort(); err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// freePort returns a port that nothing listens on. It stays below the range
// from which the kernel takes the ports of outgoing connections, so that it is
// still free when the server comes back after a restart.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 15000 + rand.IntN(17000)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}

// remove ends the server whatever state it is in.
func (s *Server) remove(t T) {
	if err := killAll(s.DataDir()); err != nil {
		t.Errorf("%s: %v", s.Name, err)
	}
	if s.exited != nil {
		<-s.exited
	}
	if t.Failed() {
		t.Logf("log of %s, %v:\n%s", s.Name, s.install, tail(s.Log(), 300))
	}
	if keep() {
		t.Logf("%s is kept: %s", s.Name, s.DataDir())
	} else if err := os.RemoveAll(s.dir); err != nil {
		t.Errorf("%s: %v", s.Name, err)
	}
	space.leave()
}

func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	if len(all) > lines {
		all = append([]string{fmt.Sprintf("(%d lines before)\n", len(all)-lines)}, all[len(all)-lines:]...)
	}
	return strings.Join(all, "")
}

// DataDir is the server's data directory.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// SocketDir is the directory of the server's unix socket.
func (s *Server) SocketDir() string { return s.dir }

// Install is the installation that the server runs from.
func (s *Server) Install() *Install { return s.install }

// Start starts the server and waits until it accepts connections.
func (s *Server) Start(t T) {
	t.Helper()
	if err := s.TryStart(); err != nil {
		t.Fatalf("%v", err)
	}
}

// TryStart starts the server and waits until it accepts connections, or has
// given up. What killed processes have mapped may be there a moment longer than
// they are, so it tries again where that is in the way.
func (s *Server) TryStart() (err error) {
	_ = poll(DefaultDeadline, func() bool {
		err = s.startOnce()
		return err == nil || !strings.Contains(err.Error(), "pre-existing shared memory block")
	})
	return err
}

func (s *Server) startOnce() error {
	if s.Running() {
		return fmt.Errorf("%s is running already", s.Name)
	}
	mark := s.LogMark()
	logFile, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close()
	// What belongs to the place and not to the configuration is on the command
	// line, so that a standby never inherits it.
	s.cmd = s.install.launch(s.DataDir(), s.base, "QUIT", "postgres", "-D", s.DataDir(),
		"-c", "listen_addresses=127.0.0.1", "-c", fmt.Sprintf("port=%d", s.Port),
		"-c", "unix_socket_directories="+s.dir, "-c", "cluster_name="+s.Name)
	s.cmd.Stdout, s.cmd.Stderr = logFile, logFile
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		s.exitErr = cmd.Wait()
		close(exited)
	}(s.cmd, s.exited)

	var gaveUp error
	err = poll(DefaultDeadline, func() error {
		if !s.Running() {
			gaveUp = fmt.Errorf("%s did not start: %v\n%s", s.Name, s.exitErr, tail(s.LogSince(mark), 30))
			return nil
		}
		return s.ready()
	})
	if gaveUp != nil {
		return gaveUp
	}
	if err != nil {
		return fmt.Errorf("%s did not start within %v: %w\n%s", s.Name, DefaultDeadline, err, tail(s.LogSince(mark), 30))
	}
	return nil
}

// ready tells from the postmaster's own file whether it accepts connections.
func (s *Server) ready() error {
	content, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	if err != nil {
		return err
	}
	lines := strings.Split(string(content), "\n")
	if lines[0] != strconv.Itoa(s.cmd.Process.Pid) {
		return fmt.Errorf("postmaster.pid is of process %s", lines[0])
	}
	if len(lines) < 8 || strings.TrimSpace(lines[7]) != "ready" {
		return errors.New("the postmaster is not ready")
	}
	return nil
}

// Running tells whether the postmaster process exists.
func (s *Server) Running() bool {
	if s.exited == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// Stop shuts the server down, and fails the test unless it is down within
// DefaultDeadline.
func (s *Server) Stop(t T, mode StopMode) {
	t.Helper()
	s.Signal(t, syscall.Signal(mode))
	s.WaitExit(t, DefaultDeadline)
}

// WaitExit waits for the postmaster to exit.
func (s *Server) WaitExit(t T, deadline time.Duration) {
	t.Helper()
	select {
	case <-s.exited:
	case <-time.After(deadline):
		t.Fatalf("%s did not exit within %v; processes left:\n%s", s.Name, deadline, formatProcesses(s.Processes()))
	}
}

// Restart stops the server in mode Fast and starts it.
func (s *Server) Restart(t T) {
	t.Helper()
	s.Stop(t, Fast)
	s.Start(t)
}

// Kill9 kills the postmaster and all its children with SIGKILL, as when the
// machine goes down.
func (s *Server) Kill9(t T) {
	t.Helper()
	if !s.Running() {
		t.Fatalf("%s is not running", s.Name)
	}
	if err := killAll(s.DataDir()); err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	<-s.exited
}

// Signal sends a signal to the postmaster.
func (s *Server) Signal(t T, sig syscall.Signal) {
	t.Helper()
	if !s.Running() {
		t.Fatalf("%s is not running", s.Name)
	}
	if err := syscall.Kill(s.PostmasterPID(), sig); err != nil {
		t.Fatalf("%s: %v: %v", s.Name, sig, err)
	}
}

// Freeze stops all processes of the server with SIGSTOP: its connections stay
// open and nobody answers. Thaw lets them go on.
func (s *Server) Freeze(t T) {
	t.Helper()
	// The postmaster first, so that it starts no new ones.
	s.Signal(t, syscall.SIGSTOP)
	for _, pid := range processes(s.DataDir()) {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

// Thaw undoes Freeze.
func (s *Server) Thaw(t T) {
	t.Helper()
	for _, pid := range processes(s.DataDir()) {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	s.Signal(t, syscall.SIGCONT)
}

// Promote promotes a standby and waits until it accepts writes. It returns the
// time that took.
func (s *Server) Promote(t T) time.Duration {
	t.Helper()
	start := time.Now()
	// What pg_ctl promote does. It needs no connection, so a promotion also
	// works when all are taken.
	s.WriteFile(t, "promote", "")
	s.Signal(t, syscall.SIGUSR1)
	Eventually(t, DefaultDeadline, s.Name+" to be promoted", func() error {
		inRecovery, err := TryQueryOne[bool](s, "select pg_is_in_recovery()")
		if err == nil && inRecovery {
			err = errors.New("it is still in recovery")
		}
		return err
	})
	return time.Since(start)
}
