// Package surface runs the tests of the SQL surface with pg_regress:
// regress/sql/*.sql against regress/expected/*.out, on every version. A file
// with a _1, _2 ... at the end of its name is another accepted output.
package surface

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

func TestSQL(t *testing.T) {
	files, err := filepath.Glob("../sql/*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, files, "regress/sql has no tests")
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".sql"))
	}
	for _, major := range cluster.Versions(t) {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			s := cluster.New(t, major, cluster.Preload("replsync"))
			run(t, s, names)
		})
	}
}

func run(t *testing.T, s *cluster.Server, names []string) {
	// The server's user, in its root, sees neither this directory nor may it
	// write into it.
	dir := s.TempDir(t)
	for _, part := range []string{"../sql", "../expected"} {
		out, err := exec.Command("cp", "-r", part, dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	for _, name := range names {
		// pg_regress gives up at a missing one, and shows no output.
		f, err := os.OpenFile(filepath.Join(dir, "expected", name+".out"), os.O_CREATE, 0o644)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	require.NoError(t, s.GiveToServer(dir))
	args := []string{
		"--inputdir=" + dir, "--outputdir=" + dir, "--expecteddir=" + dir, "--bindir=" + s.Install().BinDir,
		"--host=127.0.0.1", "--port=" + strconv.Itoa(s.Port), "--user=postgres", "--dbname=contrib_regression",
	}
	if s.Major < 16 {
		// It has no --expecteddir and looks in the input directory.
		args = append(args[:2], args[3:]...)
	}
	out, err := s.Command(s.Install().PgRegress(), append(args, names...)...).CombinedOutput()
	t.Logf("%s", out)
	if err == nil {
		return
	}
	diffs, readErr := os.ReadFile(filepath.Join(dir, "regression.diffs"))
	require.NoError(t, readErr)
	// For those who accept the outcome as expected.
	kept := filepath.Join(os.TempDir(), "replsync-results-"+strconv.Itoa(s.Major))
	if copied, err := exec.Command("sh", "-c", `rm -rf "$2" && cp -r "$1/results" "$2"`, "sh", dir, kept).CombinedOutput(); err != nil {
		t.Logf("keeping the results: %v: %s", err, copied)
	}
	t.Errorf("pg_regress: %v; the results are in %s\n%s", err, kept, diffs)
}
