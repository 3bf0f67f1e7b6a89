package cluster

import (
	"fmt"
	"os/exec"
	"strings"
)

// Command returns a command that runs one of the version's programs (psql,
// pg_dump) as the server's user, in the server's root, with the environment
// set up to connect to this server.
func (s *Server) Command(program string, args ...string) *exec.Cmd {
	cmd := s.install.command(s.dir, s.base, program, args...)
	cmd.Env = append(cmd.Env, "PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", s.Port),
		"PGUSER=postgres", "PGDATABASE=postgres")
	return cmd
}

// Run runs one of the version's programs and returns its output.
func (s *Server) Run(t T, program string, args ...string) string {
	t.Helper()
	out, err := s.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// PSQL runs a script with psql, unaligned and without headers, and returns its
// output.
func (s *Server) PSQL(t T, script string) string {
	t.Helper()
	cmd := s.Command("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return strings.TrimRight(string(out), "\n")
}
