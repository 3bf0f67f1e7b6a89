package conninfo

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
)

// The values of sslmode.
const (
	modeDisable    = "disable"
	modeAllow      = "allow"
	modePrefer     = "prefer"
	modeRequire    = "require"
	modeVerifyCA   = "verify-ca"
	modeVerifyFull = "verify-full"
)

// rootSystem is the sslrootcert that stands for the operating system's certificates.
const rootSystem = "system"

const hintRoot = "Either provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode " +
	"to disable server certificate verification."

// encryption is one way to go about a connection.
type encryption bool

const (
	plain     encryption = false
	encrypted encryption = true
)

// encryptions returns what to try with a server in turn.
func encryptions(mode string) []encryption {
	switch mode {
	case modeDisable:
		return []encryption{plain}
	case modeAllow:
		return []encryption{plain, encrypted}
	case modePrefer:
		return []encryption{encrypted, plain}
	}
	return []encryption{encrypted}
}

// tlsSettings is what all servers of a connection string share.
type tlsSettings struct {
	mode        string
	sni         bool
	direct      bool
	min, max    uint16
	roots       *x509.CertPool
	certificate *tls.Certificate
}

var tlsVersions = map[string]uint16{
	"tlsv1":   tls.VersionTLS10,
	"tlsv1.1": tls.VersionTLS11,
	"tlsv1.2": tls.VersionTLS12,
	"tlsv1.3": tls.VersionTLS13,
}

// tlsVersion returns 0, crypto/tls's own choice, for an empty value.
func (s settings) tlsVersion(name string) (uint16, error) {
	value := s[name]
	version, ok := tlsVersions[strings.ToLower(value)]
	if value != "" && !ok {
		return 0, errInvalidValue(name).withHint("Valid values are: TLSv1, TLSv1.1, TLSv1.2, TLSv1.3.")
	}
	return version, nil
}

// tlsVersionRange checks as fe-connect.c: pqConnectOptions2 does, also where no TLS will be used.
func (s settings) tlsVersionRange() (lowest, highest uint16, err error) {
	if lowest, err = s.tlsVersion("ssl_min_protocol_version"); err != nil {
		return 0, 0, err
	}
	if highest, err = s.tlsVersion("ssl_max_protocol_version"); err != nil {
		return 0, 0, err
	}
	if highest != 0 && lowest > highest {
		return 0, 0, newError(codeInvalidValue, "invalid SSL protocol version range").
			withHint("The value of \"ssl_min_protocol_version\" must not be above that of \"ssl_max_protocol_version\".")
	}
	return lowest, highest, nil
}

// loadTLS reads the certificates (fe-secure-openssl.c: initialize_SSL).
func (s settings) loadTLS(env Environment) (*tlsSettings, error) {
	t := &tlsSettings{
		mode:   s["sslmode"],
		sni:    strings.HasPrefix(s["sslsni"], "1"),
		direct: s["sslnegotiation"] == "direct",
	}
	var err error
	if t.min, t.max, err = s.tlsVersionRange(); err != nil {
		return nil, err
	}
	if t.roots, err = s.loadRoots(env); err != nil {
		return nil, err
	}
	if s["sslcertmode"] != "disable" {
		t.certificate, err = s.loadCertificate(env)
	}
	return t, err
}

// loadRoots returns nil where the server's certificate is not looked at.
func (s settings) loadRoots(env Environment) (*x509.CertPool, error) {
	file := firstOf(s["sslrootcert"], env.inHome(".postgresql/root.crt"))
	if file == rootSystem {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, newError(codeConfigFile, "could not load system root certificates: %s", pathReason(err)).withCause(err)
		}
		return pool, nil
	}
	if !isThere(file) {
		if s["sslmode"] != modeVerifyCA && s["sslmode"] != modeVerifyFull {
			return nil, nil
		}
		if file == "" {
			return nil, newError(codeConfigFile, "could not get home directory to locate root certificate file").
				withHint(hintRoot)
		}
		return nil, newError(codeConfigFile, "root certificate file \"%s\" does not exist", file).withHint(hintRoot)
	}
	pem, err := readRegular(file)
	if err != nil {
		return nil, newError(codeConfigFile, "could not read root certificate file \"%s\": %s", file, pathReason(err)).
			withCause(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, newError(codeConfigFile, "could not read root certificate file \"%s\": no certificate found", file)
	}
	// libpq would check it unasked. Not to check is worse than not to connect.
	if crl := env.inHome(".postgresql/root.crl"); isThere(crl) {
		return nil, newError(codeUnsupported, "certificate revocation list \"%s\" cannot be checked", crl).
			withHint("%s", findKey("sslcrl").hint)
	}
	return pool, nil
}

// loadCertificate returns nil where there is no client certificate, which only the server can object to.
func (s settings) loadCertificate(env Environment) (*tls.Certificate, error) {
	file := firstOf(s["sslcert"], env.inHome(".postgresql/postgresql.crt"))
	if file == "" {
		return nil, nil
	}
	if _, err := os.Stat(file); err != nil {
		if isAbsent(err) {
			return nil, nil
		}
		return nil, newError(codeConfigFile, "could not open certificate file \"%s\": %s", file, pathReason(err)).
			withCause(err)
	}
	chain, err := readRegular(file)
	if err != nil {
		return nil, newError(codeConfigFile, "could not read certificate file \"%s\": %s", file, pathReason(err)).
			withCause(err)
	}
	keyFile := firstOf(s["sslkey"], env.inHome(".postgresql/postgresql.key"))
	keyPEM, err := loadKey(keyFile, s["sslpassword"])
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		return nil, newError(codeConfigFile, "could not use certificate file \"%s\" with private key file \"%s\": %s",
			file, keyFile, err).withCause(err)
	}
	return &certificate, nil
}

// config returns the TLS configuration for one server.
func (t *tlsSettings) config(host string) *tls.Config {
	c := &tls.Config{
		MinVersion: t.min,
		MaxVersion: t.max,

		// Go's own verification has no verify-ca, and takes no certificate that has its host name in the common name
		// only, which PostgreSQL's manual shows how to make. VerifyConnection does what libpq does.
		InsecureSkipVerify: true,
		VerifyConnection:   func(state tls.ConnectionState) error { return t.verify(state, host) },
	}
	if t.certificate != nil {
		// Not Certificates: from that list Go sends nothing where the server names other authorities, and the server would
		// report a missing certificate rather than a wrong one.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.certificate, nil }
	}
	// RFC 6066 has no addresses in there.
	if t.sni && !isIP(host) {
		c.ServerName = host
	}
	if t.direct {
		c.NextProtos = []string{alpn}
	}
	return c
}

// alpn is PostgreSQL's name in TLS application-layer protocol negotiation.
const alpn = "postgresql"

func (t *tlsSettings) verify(state tls.ConnectionState, host string) error {
	if t.direct && state.NegotiatedProtocol != alpn {
		return errors.New("direct SSL connection was established without ALPN protocol negotiation extension")
	}
	if t.roots == nil {
		return nil
	}
	if len(state.PeerCertificates) == 0 {
		return errors.New("server sent no certificate")
	}
	options := x509.VerifyOptions{Roots: t.roots, Intermediates: x509.NewCertPool()}
	for _, certificate := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(certificate)
	}
	leaf := state.PeerCertificates[0]
	if _, err := leaf.Verify(options); err != nil {
		return err
	}
	if t.mode == modeVerifyFull {
		return matchHost(leaf, host)
	}
	return nil
}
