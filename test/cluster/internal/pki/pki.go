package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity is longer than any test cluster lives.
const validity = 365 * 24 * time.Hour

// Authority signs certificates and keeps them as files in one folder.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Identity is what a certificate says about its holder.
type Identity struct {
	// File is the base name of the files <File>.crt and <File>.key.
	File string
	// Name is the user's name (common name).
	Name string
	// Groups are the user's groups (organizations).
	Groups []string
	// DNSNames and IPs are what a server may be called by.
	DNSNames []string
	IPs      []net.IP
}

// NewAuthority makes a certificate authority in dir: ca.crt and ca.key.
func NewAuthority(dir, name string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the certificates: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of the certificate authority: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	a := &Authority{dir: dir, cert: template, key: key}
	if err := a.sign(template, "ca", key); err != nil {
		return nil, err
	}
	return a, nil
}

// OpenAuthority goes on with the authority in dir, and writes what it issues,
// beside its own certificate, to out.
func OpenAuthority(dir, out string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key of the certificate authority in %s is not one of ours", dir)
	}
	if err := os.MkdirAll(out, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the certificates: %w", err)
	}
	a := &Authority{dir: out, cert: pair.Leaf, key: key}
	return a, a.write("ca.crt", "CERTIFICATE", pair.Leaf.Raw, 0o644)
}

// Issue writes a certificate and its key for an identity. Every certificate
// serves as client and server certificate, as far as its names allow.
func (a *Authority) Issue(id Identity) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of %s: %w", id.Name, err)
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(id.DNSNames)+len(id.IPs) > 0 {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	return a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: id.Name, Organization: id.Groups},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: usages,
		DNSNames:    id.DNSNames,
		IPAddresses: id.IPs,
	}, id.File, key)
}

func (a *Authority) sign(template *x509.Certificate, file string, key *ecdsa.PrivateKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("choose a serial number: %w", err)
	}
	template.SerialNumber = serial
	// An hour back, for guests whose clock is behind.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(validity)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	if template.IsCA {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("read the certificate of the authority back: %w", err)
		}
	}
	if err := a.write(file+".crt", "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	return a.writeKey(file+".key", key)
}

// ServiceAccountKey writes the key pair that signs service-account tokens:
// sa.key and sa.pub.
func (a *Authority) ServiceAccountKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the service-account key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encode the service-account key: %w", err)
	}
	if err := a.write("sa.pub", "PUBLIC KEY", public, 0o644); err != nil {
		return err
	}
	return a.writeKey("sa.key", key)
}

func (a *Authority) writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode %s: %w", file, err)
	}
	return a.write(file, "EC PRIVATE KEY", der, 0o600)
}

func (a *Authority) write(file, kind string, der []byte, mode os.FileMode) error {
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(a.dir, file), content, mode); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
