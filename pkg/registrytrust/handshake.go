package registrytrust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

// handshakeTimeout bounds the connection and the handshake with one registry.
const handshakeTimeout = 10 * time.Second

// handshake connects to a registry as containerd does before it pulls, and
// returns when the certificate that it showed expires. Unlike containerd it
// trusts the bundle alone: the node's own certificate authorities cannot be
// seen from a container. The error is a *Problem.
func handshake(ctx context.Context, host string, bundle []byte) (expires time.Time, err error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		return expires, problemf(ReasonHandshakeFailed, "there is no certificate to trust %s for", host)
	}
	address, name := addressOf(host)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return expires, problemf(ReasonUnreachable, "%s cannot be reached from this node: %v: see that its name resolves here and that no firewall is between", host, err)
	}
	defer func() { _ = raw.Close() }() // nothing was sent that could be lost
	conn := tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12})
	if err := conn.HandshakeContext(ctx); err != nil {
		return expires, explain(host, err)
	}
	return conn.ConnectionState().PeerCertificates[0].NotAfter, nil
}

// explain makes of a failed handshake what an admin can act upon.
func explain(host string, err error) *Problem {
	var (
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		failed  *tls.CertificateVerificationError
		record  tls.RecordHeaderError
	)
	shown := "a certificate"
	if errors.As(err, &failed) && len(failed.UnverifiedCertificates) > 0 {
		leaf, last := failed.UnverifiedCertificates[0], failed.UnverifiedCertificates[len(failed.UnverifiedCertificates)-1]
		shown = fmt.Sprintf("a certificate for %s that was issued by %q", nameOf(leaf), last.Issuer.String())
	}
	switch {
	case errors.As(err, &unknown):
		return problemf(ReasonUnknownAuthority, "%s shows %s, which is none of the authorities that were given for it: add that authority's certificate, or renew the registry's certificate with one that was given", host, shown)
	case errors.As(err, &name):
		return problemf(ReasonWrongName, "%s shows %s, which does not hold for that name (%v): name the registry as its certificate does, or have the certificate issued for %s too", host, shown, err, host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return problemf(ReasonCertificateExpired, "%s shows %s, but that, or the authority's own, has expired or is not valid yet: renew it, and see that the clocks are right (%v)", host, shown, err)
	case errors.As(err, &record):
		return problemf(ReasonNoTLS, "%s does not speak TLS: see that the port is the one for https", host)
	case errors.Is(err, context.DeadlineExceeded):
		return problemf(ReasonUnreachable, "%s accepts connections but did not answer within %s: see that a registry listens there", host, handshakeTimeout)
	}
	return problemf(ReasonHandshakeFailed, "the handshake with %s failed: %v: it shows %s", host, err, shown)
}
