package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// An Authority is a certificate authority that lives for a test.
type Authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

// NewAuthority makes a certificate authority.
func NewAuthority(t T) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("%v", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "replsync test authority"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return &Authority{cert: cert, key: key, serial: 1}
}

// Issue makes a certificate for a common name, which is valid for the hosts
// (names or addresses), and returns it and its key in PEM.
func (a *Authority) Issue(t T, commonName string, hosts ...string) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("%v", err)
	}
	a.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial),
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return encodePEM("CERTIFICATE", der), encodePEM("EC PRIVATE KEY", keyDER)
}

// PEM is the authority's own certificate.
func (a *Authority) PEM() string { return encodePEM("CERTIFICATE", a.cert.Raw) }

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// EnableTLS gives the server a certificate for 127.0.0.1 and localhost, has it
// ask for client certificates of the same authority, and reloads. It returns
// the path of the authority's certificate, which the servers of this test can
// read too.
func (s *Server) EnableTLS(t T, a *Authority) string {
	t.Helper()
	cert, key := a.Issue(t, "localhost", "127.0.0.1", "localhost")
	s.WriteFile(t, "server.crt", cert)
	s.WriteFile(t, "server.key", key)
	s.WriteFile(t, "root.crt", a.PEM())
	s.AppendConf(t, map[string]string{"ssl": "on", "ssl_ca_file": "root.crt"})
	s.Reload(t)
	path := filepath.Join(s.dir, "ca.crt")
	if err := os.WriteFile(path, []byte(a.PEM()), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	return path
}
