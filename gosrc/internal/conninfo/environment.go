package conninfo

// Environment is what libpq would ask the operating system for. Inside a backend only C can know it.
type Environment struct {
	// Home is the home directory of the server's user. Empty: none, and no file in it is looked for.
	Home string

	// OSUser is the name of the server's user, the default for "user".
	OSUser string

	// SocketDir is DEFAULT_PGSOCKET_DIR, where a connection goes that names no host. Empty: /tmp.
	SocketDir string

	// SysConfDir is where pg_service.conf of the installation is. Empty: nowhere.
	SysConfDir string

	// Vars holds the postmaster's environment variables, of which those that libpq knows are used.
	Vars map[string]string
}

// NewEnvironment makes an Environment of the variables of the server's process, with the home directory and the name of
// its user in HOME and USER, and what libpq has compiled in in SOCKETDIR and SYSCONFDIR.
func NewEnvironment(vars map[string]string) Environment {
	return Environment{
		Home: vars["HOME"], OSUser: vars["USER"],
		SocketDir: vars["SOCKETDIR"], SysConfDir: vars["SYSCONFDIR"], Vars: vars,
	}
}

// defaultSocketDir is PostgreSQL's own DEFAULT_PGSOCKET_DIR; packagers change it.
const defaultSocketDir = "/tmp"

func (e Environment) socketDir() string {
	if e.SocketDir == "" {
		return defaultSocketDir
	}
	return e.SocketDir
}

// inHome returns the path of a file in the home directory, or "" without one.
func (e Environment) inHome(name string) string {
	if e.Home == "" {
		return ""
	}
	return e.Home + "/" + name
}

// settings is a value for each option that has one.
type settings map[string]string

// resolve adds what the string itself does not say, in libpq's order: service, environment, compiled-in default
// (fe-connect.c: conninfo_add_defaults). A value that is given and empty stays empty.
func resolve(given map[string]string, env Environment) (settings, error) {
	s := settings(given)
	if err := addService(s, env); err != nil {
		return nil, err
	}
	_, modeGiven := s["sslmode"]
	for _, k := range keys {
		if _, ok := s[k.name]; ok {
			continue
		}
		// Set by hand below: an environment's database must not hide the caller's default.
		if k.name == "dbname" {
			continue
		}
		if v, ok := env.Vars[k.env]; ok && k.env != "" {
			s[k.name] = v
			modeGiven = modeGiven || k.name == "sslmode"
			continue
		}
		if k.name == "sslmode" && len(env.Vars["PGREQUIRESSL"]) > 0 && env.Vars["PGREQUIRESSL"][0] == '1' {
			s[k.name] = modeRequire
			modeGiven = true
			continue
		}
		if k.def != "" {
			s[k.name] = k.def
		}
	}
	if !modeGiven && s["sslrootcert"] == rootSystem {
		s["sslmode"] = modeVerifyFull
	}
	return s, nil
}

// database returns the database to connect to. PGDATABASE comes after the caller's default because it is more often set
// for the shell that started the server than for this.
func (s settings) database(def string, env Environment, user string) string {
	for _, name := range []string{s["dbname"], def, env.Vars["PGDATABASE"]} {
		if name != "" {
			return name
		}
	}
	return user
}
