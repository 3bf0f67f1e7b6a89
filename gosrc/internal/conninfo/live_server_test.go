package conninfo_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// live is a primary and a standby that pg_basebackup -R made of it.
type live struct {
	dir      string
	bindir   string
	owner    *syscall.Credential
	primary  string // port
	standby  string
	ca       authority
	otherCA  authority
	recovery string // primary_conninfo as pg_basebackup -R wrote it
	stop     []func()
}

var (
	liveOnce   sync.Once
	liveShared *live
	liveErr    error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if liveShared != nil {
		for _, stop := range slices.Backward(liveShared.stop) {
			stop()
		}
	}
	os.Exit(code)
}

// server starts the servers on first use. Without PostgreSQL the test fails: there is no other check of all this.
func server(t *testing.T) *live {
	t.Helper()
	liveOnce.Do(func() {
		liveShared = &live{}
		liveErr = liveShared.start()
	})
	require.NoError(t, liveErr, "these tests need a PostgreSQL server; set REPLSYNC_TEST_BINDIR to its bin directory")
	return liveShared
}

func findBindir() (string, error) {
	if dir := os.Getenv("REPLSYNC_TEST_BINDIR"); dir != "" {
		return dir, nil
	}
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(dirs) == 0 {
		return "", fmt.Errorf("no /usr/lib/postgresql/*/bin")
	}
	return slices.MaxFunc(dirs, func(a, b string) int { return majorOf(a) - majorOf(b) }), nil
}

func majorOf(bindir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bindir)))
	return n
}

func (l *live) start() (err error) {
	if l.bindir, err = findBindir(); err != nil {
		return err
	}
	if l.dir, err = os.MkdirTemp("", "conninfo"); err != nil {
		return err
	}
	l.stop = append(l.stop, func() { os.RemoveAll(l.dir) })
	if err := l.chooseOwner(); err != nil {
		return err
	}
	if l.ca, err = newAuthority("good"); err != nil {
		return err
	}
	if l.otherCA, err = newAuthority("other"); err != nil {
		return err
	}
	if err := l.startPrimary(); err != nil {
		return err
	}
	return l.startStandby()
}

// chooseOwner has the servers run as postgres where the test runs as root, which PostgreSQL refuses.
func (l *live) chooseOwner() error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	l.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(l.dir, uid, gid)
}

func (l *live) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(l.bindir, program), args...)
	cmd.Dir = l.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: l.owner}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.dir, "LC_ALL=C", "PGPASSWORD=" + password}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// write creates a file that belongs to the server.
func (l *live) write(name, content string, mode os.FileMode) error {
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		return err
	}
	if l.owner == nil {
		return nil
	}
	return os.Chown(name, int(l.owner.Uid), int(l.owner.Gid))
}

const password = `it's a \secret`

const hbaFile = `
local     all          all      trust
hostnossl all          tlsonly  127.0.0.1/32  reject
hostssl   all          notls    127.0.0.1/32  reject
hostssl   all          cert     127.0.0.1/32  cert
host      all          trusted  127.0.0.1/32  trust
host      all          clear    127.0.0.1/32  password
host      all          all      127.0.0.1/32  scram-sha-256
host      replication  all      127.0.0.1/32  scram-sha-256
`

const rolesSQL = `set password_encryption = 'scram-sha-256'; set standard_conforming_strings = on;
do $$ declare r text; begin
foreach r in array array['scram', 'tlsonly', 'notls', 'cert', 'trusted', 'clear', 'repl'] loop
  execute format('create role %I login replication password %L', r, 'PASSWORD');
end loop; end $$;
create database app;
alter role scram set search_path = public;
alter role scram set default_transaction_isolation = serializable;`

func (l *live) startPrimary() error {
	data := filepath.Join(l.dir, "primary")
	if err := l.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	l.primary = port
	if err := l.write(filepath.Join(data, "pg_hba.conf"), hbaFile, 0o600); err != nil {
		return err
	}
	certificate, key, err := l.ca.issue("db.test", "db.test")
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"server.crt": certificate, "server.key": key, "root.crt": l.ca.pem,
		"postgresql.auto.conf": fmt.Sprintf("listen_addresses = '127.0.0.1'\nunix_socket_directories = '%s, @%s'\n"+
			"port = %s\nssl = on\nssl_ca_file = 'root.crt'\nfsync = off\nwal_level = logical\n", l.dir, l.dir, port),
	} {
		if err := l.write(filepath.Join(data, name), content, 0o600); err != nil {
			return err
		}
	}
	if err := l.startServer(data); err != nil {
		return err
	}
	sql := strings.ReplaceAll(rolesSQL, "PASSWORD", strings.ReplaceAll(password, "'", "''"))
	conn, err := pgx.Connect(context.Background(), fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres", l.dir, port))
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for _, statement := range []string{sql[:strings.Index(sql, "create database")], "create database app",
		"alter role scram set search_path = public",
		"alter role scram set default_transaction_isolation = serializable"} {
		if _, err := conn.PgConn().Exec(context.Background(), statement).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

func (l *live) startStandby() error {
	data := filepath.Join(l.dir, "standby")
	if err := l.run("pg_basebackup", "-R", "-D", data, "-X", "stream", "-c", "fast",
		"-d", "host=127.0.0.1 user=repl dbname=app port="+l.primary); err != nil {
		return err
	}
	conf, err := os.ReadFile(filepath.Join(data, "postgresql.auto.conf"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(conf)) {
		if quoted, ok := strings.CutPrefix(line, "primary_conninfo = '"); ok {
			quoted = strings.TrimSuffix(strings.TrimSpace(quoted), "'")
			l.recovery = strings.NewReplacer("''", "'", `\\`, `\`).Replace(quoted)
		}
	}
	if l.standby, err = freePort(); err != nil {
		return err
	}
	conf = append(conf, "\nport = "+l.standby+"\n"...)
	if err := l.write(filepath.Join(data, "postgresql.auto.conf"), string(conf), 0o600); err != nil {
		return err
	}
	return l.startServer(data)
}

func (l *live) startServer(data string) error {
	if err := l.run("pg_ctl", "start", "-w", "-D", data, "-l", data+".log"); err != nil {
		log, _ := os.ReadFile(data + ".log")
		return fmt.Errorf("%w\n%s", err, log)
	}
	l.stop = append(l.stop, func() {
		if err := l.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", data); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	return nil
}

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(name string) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return authority{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return authority{certificate: certificate, key: key, pem: text}, err
}

func (a authority) issue(commonName string, names ...string) (certificate, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: commonName}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		return "", "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})), err
}

// sealKey writes a key in the only encrypted form that Go reads.
func sealKey(t *testing.T, key any, phrase string) string {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	require.NoError(t, err)
	//nolint:staticcheck // what "openssl ec -aes256" writes
	block, err := x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", der, []byte(phrase), x509.PEMCipherAES256)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(block))
}
