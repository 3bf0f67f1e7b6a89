package conninfo

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMatchName(t *testing.T) {
	for _, test := range []struct {
		pattern, host string
		want          bool
	}{
		{"db.test", "db.test", true},
		{"DB.test", "db.TEST", true},
		{"db.test", "db.test.example", false},
		{"*.test", "db.test", true},
		{"*.test", "a.db.test", false},
		{"*.test", ".test", false},
		{"*.test", "test", false},
		{"*", "db", false},
		{"*.", "db.", false},
		{"d*.test", "db.test", false},
		{"*db.test", "xdb.test", false},
		{"db.test\x00.evil", "db.test", false},
	} {
		require.Equal(t, test.want, matchName(test.pattern, test.host), "%s %s", test.pattern, test.host)
	}
}

func TestMatchHost(t *testing.T) {
	certificate := func(commonName string, ip string, names ...string) *x509.Certificate {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: commonName}, DNSNames: names}
		if ip != "" {
			c.IPAddresses = []net.IP{net.ParseIP(ip)}
		}
		return c
	}
	for _, test := range []struct {
		certificate *x509.Certificate
		host        string
		want        string
	}{
		{certificate("db.test", ""), "db.test", ""},
		{certificate("*.test", ""), "db.test", ""},
		{certificate("db.test", "", "x.test"), "db.test", "does not match"},
		{certificate("db.test", "10.0.0.1"), "db.test", ""},
		{certificate("x", "", "x.test", "db.test"), "db.test", ""},
		{certificate("x", "10.0.0.1"), "10.0.0.1", ""},
		{certificate("x", "fe80::1"), "FE80:0::1", ""},
		{certificate("10.0.0.1", "10.0.0.2"), "10.0.0.1", "does not match"},
		{certificate("10.0.0.1", "", "x.test"), "10.0.0.1", ""},
		{certificate("", ""), "db.test", "could not get"},
		{certificate("", "", "a", "b"), "db.test", "and 1 other"},
	} {
		err := matchHost(test.certificate, test.host)
		if test.want == "" {
			require.NoError(t, err, "%v %s", test.certificate, test.host)
		} else {
			require.ErrorContains(t, err, test.want, test.host)
		}
	}
}

func TestTLSConfig(t *testing.T) {
	load := func(text string) *tlsSettings {
		c, err := Parse("host=h user=u "+text, Options{})
		require.NoError(t, err, text)
		return c.tls
	}
	require.Equal(t, "h", load("").config("h").ServerName)
	require.Equal(t, "", load("sslsni=0").config("h").ServerName)
	require.Equal(t, "", load("").config("10.0.0.1").ServerName)
	require.Equal(t, "", load("").config("fe80::1%eth0").ServerName)
	require.Equal(t, uint16(0x0303), load("").config("h").MinVersion)
	require.Equal(t, uint16(0x0301), load("ssl_min_protocol_version=TLSv1").config("h").MinVersion)
	require.Equal(t, uint16(0x0303), load("ssl_max_protocol_version=tlsV1.2").config("h").MaxVersion)
	require.Equal(t, []string{alpn}, load("sslmode=require sslnegotiation=direct").config("h").NextProtos)

	c, err := Parse("host=h user=u sslrootcert=system", Options{})
	require.NoError(t, err)
	require.Equal(t, modeVerifyFull, c.mode)
	require.NotNil(t, c.tls.roots)

	_, err = Parse("host=h user=u ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", Options{})
	_ = requireError(t, err, "range")
	_, err = Parse("host=h user=u sslmode=require sslrootcert=/dev/null", Options{})
	_ = requireError(t, err, "no plain file")
}
