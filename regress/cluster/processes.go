package cluster

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// A Process is a process of a server.
type Process struct {
	PID   int
	Title string
}

func formatProcesses(processes []Process) string {
	var b strings.Builder
	for _, p := range processes {
		fmt.Fprintf(&b, "%d %s\n", p.PID, p.Title)
	}
	return b.String()
}

// Processes returns the server's processes with their titles.
func (s *Server) Processes() []Process {
	var list []Process
	for _, pid := range processes(s.DataDir()) {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		title := strings.TrimRight(strings.ReplaceAll(string(cmdline), "\x00", " "), " ")
		list = append(list, Process{pid, title})
	}
	return list
}

// PostmasterPID is the process id of the postmaster.
func (s *Server) PostmasterPID() int { return s.cmd.Process.Pid }

// FindWorker returns the process whose title matches the regular expression, and
// 0 when there is none.
func (s *Server) FindWorker(pattern string) int {
	re := regexp.MustCompile(pattern)
	for _, p := range s.Processes() {
		if p.PID != s.PostmasterPID() && re.MatchString(p.Title) {
			return p.PID
		}
	}
	return 0
}

// WorkerPID waits for a process whose title matches the regular expression.
func (s *Server) WorkerPID(t T, pattern string) int {
	t.Helper()
	var pid int
	Eventually(t, DefaultDeadline, fmt.Sprintf("a process of %s that matches %q", s.Name, pattern), func() error {
		if pid = s.FindWorker(pattern); pid == 0 {
			return fmt.Errorf("there are only:\n%s", formatProcesses(s.Processes()))
		}
		return nil
	})
	return pid
}
