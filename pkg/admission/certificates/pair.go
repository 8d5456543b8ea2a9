package certificates

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/util/cert"
)

// pair is a serving certificate with its authority.
type pair struct {
	cert, key []byte // PEM; cert holds the authority's certificate, too
	serving   tls.Certificate
	leaf      *x509.Certificate
	authority *x509.Certificate
}

// makePair makes a certificate for the names.
func makePair(names []string, lifetime time.Duration) (*pair, error) {
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKeyWithOptions(cert.SelfSignedCertKeyOptions{
		Host: names[0], AlternateDNS: names[1:], MaxAge: lifetime,
	})
	if err != nil {
		return nil, fmt.Errorf("make a certificate for %s: %w", names[0], err)
	}
	return readPair(certPEM, keyPEM)
}

// readPair parses what makePair has made.
func readPair(certPEM, keyPEM []byte) (*pair, error) {
	if len(certPEM) == 0 || len(keyPEM) == 0 {
		return nil, errors.New("no certificate yet")
	}
	serving, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	all, err := cert.ParseCertsPEM(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	if len(all) != 2 || !all[1].IsCA {
		return nil, fmt.Errorf("read the certificate: want one with its authority, got %d", len(all))
	}
	return &pair{cert: certPEM, key: keyPEM, serving: serving, leaf: all[0], authority: all[1]}, nil
}

// usable returns nil if a client that trusts the authority accepts the
// certificate for all names.
func (p *pair) usable(names []string, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(p.authority)
	for _, name := range names {
		if _, err := p.leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now}); err != nil {
			return fmt.Errorf("the certificate is of no use for %s: %w", name, err)
		}
	}
	return nil
}

// renewAt is when two thirds of the certificate's life are over.
func (p *pair) renewAt() time.Time {
	return p.leaf.NotBefore.Add(p.leaf.NotAfter.Sub(p.leaf.NotBefore) * 2 / 3)
}

// made is when the certificate was made: it is valid from an hour before.
func (p *pair) made() time.Time { return p.leaf.NotBefore.Add(time.Hour) }

// authorities joins the certificates in the bundle that have not expired with
// those of the pairs. A bundle that cannot be read counts as empty.
func authorities(bundle []byte, now time.Time, pairs ...*pair) []byte {
	known, err := cert.ParseCertsPEM(bundle)
	if err != nil {
		known = nil
	}
	for _, p := range pairs {
		if p != nil {
			known = append(known, p.authority)
		}
	}
	var out []byte
	for _, c := range known {
		block := pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: c.Raw})
		if now.Before(c.NotAfter) && !bytes.Contains(out, block) {
			out = append(out, block...)
		}
	}
	return out
}

// trusts tells whether the bundle has the pair's authority.
func trusts(bundle []byte, p *pair) bool {
	return bytes.Contains(bundle, pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: p.authority.Raw}))
}
