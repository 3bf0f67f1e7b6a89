package conninfo

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"strings"
	"syscall"
)

const hintKeyFormat = "Store the key without a pass phrase in a file with mode 0600, or encrypt it with " +
	"\"openssl rsa -aes256 -traditional\"."

// isAbsent tells whether a file is simply not there.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// loadKey reads a private key and returns it in PEM form and without encryption.
func loadKey(file, password string) ([]byte, error) {
	// libpq takes the part before the colon for an OpenSSL engine.
	if strings.Contains(file, ":") {
		return nil, newError(codeUnsupported, "connection option \"sslkey\" may not name an OpenSSL engine").
			withHint("Give the path of a file without a colon in it.")
	}
	f, info, err := openRegular(file)
	switch {
	case isAbsent(err) || file == "":
		return nil, newError(codeConfigFile, "certificate present, but not private key file \"%s\"", file)
	case errors.Is(err, errNotRegular):
		return nil, newError(codeConfigFile, "private key file \"%s\" is not a regular file", file)
	case err != nil:
		return nil, newError(codeConfigFile, "could not open private key file \"%s\": %s", file, pathReason(err)).
			withCause(err)
	}
	defer f.Close()
	if !keyModeSafe(info) {
		return nil, newError(codeConfigFile, "private key file \"%s\" has group or world access", file).
			withHint("File must have permissions u=rw (0600) or less if owned by the current user, or permissions " +
				"u=rw,g=r (0640) or less if owned by root.")
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, newError(codeConfigFile, "could not read private key file \"%s\": %s", file, pathReason(err)).
			withCause(err)
	}
	return decryptKey(file, content, password)
}

// keyModeSafe follows fe-secure-openssl.c: initialize_SSL. A key of root's that the group may read is how certificates of
// the whole machine are shared.
func keyModeSafe(info fs.FileInfo) bool {
	unsafe := fs.FileMode(0o077)
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 {
		unsafe = 0o037
	}
	return info.Mode().Perm()&unsafe == 0
}

func decryptKey(file string, content []byte, password string) ([]byte, error) {
	block := keyBlock(content)
	if block == nil {
		block = derKey(content)
	}
	if block == nil {
		return nil, newError(codeConfigFile, "could not load private key file \"%s\": no private key found", file)
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, newError(codeUnsupported, "could not load private key file \"%s\": encryption is not supported", file).
			withHint(hintKeyFormat)
	}
	//nolint:staticcheck // deprecated as weak, and still what libpq's users have
	if x509.IsEncryptedPEMBlock(block) {
		der, err := x509.DecryptPEMBlock(block, []byte(password)) //nolint:staticcheck // as above
		if err != nil {
			e := newError(codeConfigFile, "could not load private key file \"%s\": it is encrypted", file)
			if password == "" {
				return nil, e.withHint("Give its pass phrase in \"sslpassword\".")
			}
			return nil, e.withHint("The pass phrase in \"sslpassword\" does not fit.")
		}
		block = &pem.Block{Type: block.Type, Bytes: der}
	}
	return pem.EncodeToMemory(block), nil
}

// keyBlock returns the first private key of a PEM file. "EC PARAMETERS" may come before it.
func keyBlock(content []byte) *pem.Block {
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return nil
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return block
		}
	}
}

// derKey returns a key that is not in PEM form, which libpq tries last.
func derKey(content []byte) *pem.Block {
	if _, err := x509.ParsePKCS8PrivateKey(content); err == nil {
		return &pem.Block{Type: "PRIVATE KEY", Bytes: content}
	}
	if _, err := x509.ParsePKCS1PrivateKey(content); err == nil {
		return &pem.Block{Type: "RSA PRIVATE KEY", Bytes: content}
	}
	if _, err := x509.ParseECPrivateKey(content); err == nil {
		return &pem.Block{Type: "EC PRIVATE KEY", Bytes: content}
	}
	return nil
}
