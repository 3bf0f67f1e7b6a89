package conninfo

import (
	"crypto/x509"
	"fmt"
	"net"
	"strings"
)

// matchHost checks that a certificate is the host's (fe-secure-openssl.c: pgtls_verify_peer_name_matches_certificate_guts).
// The common name counts where the certificate has no subject alternative name of the host's kind.
func matchHost(certificate *x509.Certificate, host string) error {
	ip := net.ParseIP(host)
	var names []string
	for _, name := range certificate.DNSNames {
		names = append(names, name)
		if matchName(name, host) {
			return nil
		}
	}
	for _, address := range certificate.IPAddresses {
		names = append(names, address.String())
		if ip != nil && address.Equal(ip) {
			return nil
		}
	}
	sameKind := len(certificate.DNSNames) > 0
	if ip != nil {
		sameKind = len(certificate.IPAddresses) > 0
	}
	if name := certificate.Subject.CommonName; !sameKind && name != "" {
		names = append(names, name)
		if matchName(name, host) {
			return nil
		}
	}
	switch len(names) {
	case 0:
		return fmt.Errorf("could not get server's host name from server certificate")
	case 1:
		return fmt.Errorf("server certificate for \"%s\" does not match host name \"%s\"", names[0], host)
	}
	return fmt.Errorf("server certificate for \"%s\" (and %d other names) does not match host name \"%s\"",
		names[0], len(names)-1, host)
}

// matchName follows fe-secure-common.c: pq_verify_peer_name_matches_certificate_name. A leading "*" stands for one label.
func matchName(pattern, host string) bool {
	if strings.ContainsRune(pattern, 0) {
		return false
	}
	if strings.EqualFold(pattern, host) {
		return true
	}
	suffix, ok := strings.CutPrefix(pattern, "*")
	if !ok || len(suffix) < 2 || suffix[0] != '.' {
		return false
	}
	label, rest, found := strings.Cut(host, ".")
	return found && label != "" && strings.EqualFold("."+rest, suffix)
}
