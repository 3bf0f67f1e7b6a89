package cluster

import (
	"fmt"
	"maps"
	"strings"
)

// An Option changes how New or Standby makes a server.
type Option func(*options)

type options struct {
	name       string
	settings   map[string]string
	hba        []string
	fsync      bool
	notStarted bool
	preload    []string

	slot       string
	noSlot     bool
	backupArgs []string
	conninfo   string
}

func gather(opts []Option) *options {
	o := &options{settings: map[string]string{}}
	for _, opt := range opts {
		opt(o)
	}
	return o
}

// Name sets the server's name (its cluster_name, which is also in its process
// titles, and the prefix of its log in the output of a failed test). A number is
// appended to it. The default is "primary" or "standby".
func Name(name string) Option { return func(o *options) { o.name = name } }

// Preload names the libraries of shared_preload_libraries. A standby inherits
// its primary's setting unless it is given one.
func Preload(libraries ...string) Option {
	return func(o *options) { o.preload = append(o.preload, libraries...) }
}

// Setting puts a parameter into postgresql.conf.
func Setting(name string, value any) Option {
	return func(o *options) { o.settings[name] = fmt.Sprint(value) }
}

// Settings puts parameters into postgresql.conf.
func Settings(settings map[string]string) Option {
	return func(o *options) { maps.Copy(o.settings, settings) }
}

// Fsync runs the server with fsync on, for measurements. The default is off: a
// process that is killed loses nothing by it, only a machine that goes down.
func Fsync() Option { return func(o *options) { o.fsync = true } }

// HBA puts lines before those of pg_hba.conf, which trust every connection from
// this machine.
func HBA(lines ...string) Option {
	return func(o *options) { o.hba = append(o.hba, lines...) }
}

// NotStarted makes the server without starting it.
func NotStarted() Option { return func(o *options) { o.notStarted = true } }

// Slot names the physical slot that a standby uses; the default is the standby's
// name.
func Slot(name string) Option { return func(o *options) { o.slot = name } }

// NoSlot makes a standby that uses no physical slot.
func NoSlot() Option { return func(o *options) { o.noSlot = true } }

// BackupArgs adds arguments to the pg_basebackup that makes a standby.
func BackupArgs(args ...string) Option {
	return func(o *options) { o.backupArgs = append(o.backupArgs, args...) }
}

// PrimaryConninfo sets a standby's primary_conninfo instead of the one that
// pg_basebackup -R writes, for instance to go through a Proxy.
func PrimaryConninfo(conninfo string) Option {
	return func(o *options) { o.conninfo = conninfo }
}

// quoteConf quotes a value for postgresql.conf.
func quoteConf(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(value) + "'"
}

// QuoteLiteral quotes a string for SQL.
func QuoteLiteral(value string) string {
	if strings.Contains(value, `\`) {
		return ` E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value) + `'`
	}
	return `'` + strings.ReplaceAll(value, `'`, `''`) + `'`
}
