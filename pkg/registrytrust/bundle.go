package registrytrust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

// Bundle is the certificates that containerd is to trust for a registry.
type Bundle struct {
	// PEM is what is written: the certificates and nothing else.
	PEM []byte
	// Expired is set where others were left out because they have expired.
	Expired *Problem

	seen map[string]bool
}

// caFile is a file of the configuration.
type caFile struct {
	name    string
	content []byte
}

// newBundle reads the certificates. It refuses what must not, or cannot, be
// trusted with a *Problem. One that has expired is left out as long as others
// are left, because files that hold an old and a new certificate outlive the
// old one.
func newBundle(files []caFile, now time.Time) (*Bundle, error) {
	b := &Bundle{seen: map[string]bool{}}
	for _, file := range files {
		certificates, err := readCertificates(file)
		if err != nil {
			return nil, err
		}
		for i, certificate := range certificates {
			if err := mayAuthorize(certificate); err != nil {
				return nil, problemf(ReasonCAIsNoCA, "certificate %d in %s, of %s, %v: give the certificate of the authority that issued the registry's certificate, which is %s",
					i+1, file.name, nameOf(certificate), err, certificate.Issuer)
			}
			b.add(certificate, file.name, now)
		}
	}
	if len(b.PEM) == 0 {
		if b.Expired != nil {
			return nil, b.Expired
		}
		return nil, problemf(ReasonCAInvalid, "there is no certificate: name at least one file with one")
	}
	return b, nil
}

func (b *Bundle) add(certificate *x509.Certificate, file string, now time.Time) {
	if b.seen[string(certificate.Raw)] {
		return
	}
	b.seen[string(certificate.Raw)] = true
	if now.After(certificate.NotAfter) {
		b.Expired = problemf(ReasonCAExpired, "the certificate of %s in %s expired on %s and is not used: replace it",
			nameOf(certificate), file, certificate.NotAfter.UTC().Format(time.RFC3339))
		return
	}
	b.PEM = append(b.PEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})...)
}

// readCertificates decodes all certificates of a file. Text around them is
// fine, as openssl writes it.
func readCertificates(file caFile) ([]*x509.Certificate, error) {
	if bytes.Contains(file.content, []byte("PRIVATE KEY-----")) {
		return nil, problemf(ReasonCAIsPrivateKey, "%s holds a private key, which is for nobody but its owner, and was not written: take it out of the ConfigMap or Secret, replace the key, and give the certificate alone", file.name)
	}
	var certificates []*x509.Certificate
	rest := file.content
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, problemf(ReasonCAInvalid, "%s holds a %s: give certificates alone", file.name, strings.ToLower(block.Type))
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, problemf(ReasonCAInvalid, "certificate %d in %s is broken (%v): copy it again", len(certificates)+1, file.name, err)
		}
		certificates = append(certificates, certificate)
	}
	// The decoder passes over blocks that it cannot read.
	begun := bytes.Count(file.content, []byte("-----BEGIN "))
	switch {
	case begun > len(certificates):
		return nil, problemf(ReasonCAInvalid, "%s has %d certificates of which only %d can be read: copy it again, with all its lines", file.name, begun, len(certificates))
	case len(certificates) == 0:
		return nil, problemf(ReasonCAInvalid, "%s is not a certificate in PEM, which begins with -----BEGIN CERTIFICATE-----: convert one in DER with openssl x509 -inform der -in FILE", file.name)
	}
	return certificates, nil
}

// mayAuthorize returns why the certificate cannot have issued another one, by
// the rules of crypto/x509, which containerd uses. Certificates before version
// 3 do not say.
func mayAuthorize(c *x509.Certificate) error {
	selfIssued := bytes.Equal(c.RawIssuer, c.RawSubject)
	switch {
	case c.Version < 3 && !selfIssued, c.Version >= 3 && (!c.BasicConstraintsValid || !c.IsCA):
		return fmt.Errorf("is not that of a certificate authority")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("may not sign certificates")
	}
	return nil
}

// nameOf is how people know a certificate.
func nameOf(c *x509.Certificate) string {
	if name := c.Subject.String(); name != "" {
		return fmt.Sprintf("%q", name)
	}
	return "serial number " + c.SerialNumber.String()
}

// firstExpiry is when the first of the certificates that were written expires.
func firstExpiry(bundle []byte) (first time.Time) {
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err == nil && (first.IsZero() || c.NotAfter.Before(first)) {
			first = c.NotAfter
		}
	}
	return first
}
