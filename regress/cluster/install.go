package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// An Install is one major version of PostgreSQL that servers can be started
// from.
type Install struct {
	// Major is the major version number.
	Major int
	// BinDir is the directory of the programs, as seen from inside Root.
	BinDir string
	// Root is the directory to chroot to, empty for this machine's own version.
	Root string

	uid, gid int
	version  string
}

// String names the installation in messages.
func (in *Install) String() string {
	if in.Root != "" {
		return fmt.Sprintf("PostgreSQL %s (%s)", in.version, in.Root)
	}
	return fmt.Sprintf("PostgreSQL %s (%s)", in.version, in.BinDir)
}

// Version is the full version, as in "17.11 (Debian 17.11-0+deb13u1)".
func (in *Install) Version() string { return in.version }

// Versions returns the major versions to test, from PGVERSIONS. It fails when
// one of them is not installed.
func Versions(t T) []int {
	t.Helper()
	list := os.Getenv("PGVERSIONS")
	if list == "" {
		list = "15 17 18 19"
	}
	versions := versionsIn(t, "PGVERSIONS", list)
	if len(versions) == 0 {
		t.Fatalf("PGVERSIONS names no version")
	}
	return versions
}

// Publishers returns further major versions, from PUBLISHERS, of which servers
// are publishers only: the extension is not built for them. An empty variable
// names none. It fails when one of them is not installed.
func Publishers(t T) []int {
	t.Helper()
	list, ok := os.LookupEnv("PUBLISHERS")
	if !ok {
		list = "13"
	}
	return versionsIn(t, "PUBLISHERS", list)
}

func versionsIn(t T, variable, list string) []int {
	t.Helper()
	var versions []int
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' }) {
		major, err := strconv.Atoi(word)
		if err != nil {
			t.Fatalf("%s: %q is not a major version", variable, word)
		}
		if _, err := Find(major); err != nil {
			t.Fatalf("%v", err)
		}
		versions = append(versions, major)
	}
	return versions
}

// Find returns the installation of a major version.
func Find(major int) (*Install, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("the cluster tests start servers as another user, which takes root: run `make check`, which uses sudo")
	}
	in := &Install{Major: major}
	hostDir := fmt.Sprintf("/usr/lib/postgresql/%d/bin", major)
	env := fmt.Sprintf("REPLSYNC_PG%d_BINDIR", major)
	root := filepath.Join(rootsDir(), strconv.Itoa(major))
	switch {
	case os.Getenv(env) != "":
		in.BinDir = os.Getenv(env)
	case exists(filepath.Join(hostDir, "postgres")):
		in.BinDir = hostDir
	case exists(filepath.Join(root, hostDir, "postgres")):
		in.BinDir, in.Root = hostDir, root
	default:
		return nil, fmt.Errorf("PostgreSQL %d is neither at $%s, nor at %s, nor at %s: run regress/servers/prepare.sh %d",
			major, env, hostDir, root, major)
	}
	// A process asks for the same version again and again.
	installs.Lock()
	defer installs.Unlock()
	if found := installs.found[*in]; found != nil {
		return found, nil
	}
	key := *in
	if err := in.findUser(); err != nil {
		return nil, err
	}
	out, err := in.command("/", "", "postgres", "--version").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("postgres --version of %d: %w", major, err)
	}
	in.version = strings.TrimSpace(strings.TrimPrefix(string(out), "postgres (PostgreSQL) "))
	if !strings.HasPrefix(in.version, strconv.Itoa(major)) {
		return nil, fmt.Errorf("%s has version %s, not %d", in.BinDir, in.version, major)
	}
	installs.found[key] = in
	return in, nil
}

var installs = struct {
	sync.Mutex
	found map[Install]*Install
}{found: map[Install]*Install{}}

// findUser looks up the user that the servers run as, in the root's own files.
func (in *Install) findUser() error {
	if in.Root == "" {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		in.uid, _ = strconv.Atoi(u.Uid)
		in.gid, _ = strconv.Atoi(u.Gid)
		return nil
	}
	passwd, err := os.ReadFile(filepath.Join(in.Root, "etc/passwd"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(line, ":")
		if len(f) > 3 && f[0] == "postgres" {
			var errUID, errGID error
			in.uid, errUID = strconv.Atoi(f[2])
			in.gid, errGID = strconv.Atoi(f[3])
			if errUID == nil && errGID == nil {
				return nil
			}
		}
	}
	return fmt.Errorf("%s has no user postgres", in.Root)
}

func cacheDir() string {
	if dir := os.Getenv("REPLSYNC_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/replsync"
}

func rootsDir() string {
	if dir := os.Getenv("REPLSYNC_ROOTS"); dir != "" {
		return dir
	}
	return filepath.Join(cacheDir(), "roots")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// PgRegress is the path of the version's pg_regress.
func (in *Install) PgRegress() string {
	return filepath.Join(filepath.Dir(in.BinDir), "lib/pgxs/src/test/regress/pg_regress")
}
