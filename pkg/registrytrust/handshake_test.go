package registrytrust

import (
	"bufio"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

func TestHandshake(t *testing.T) {
	ca, other := newCA(t, "my CA"), newCA(t, "other CA")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		host   string
		bundle string
		reason Reason
		say    []string
	}{
		"trusted":         {serve(t, ca, asIs), ca.pem, "", nil},
		"one of several":  {serve(t, ca, asIs), other.pem + ca.pem, "", nil},
		"other authority": {serve(t, ca, asIs), other.pem, ReasonUnknownAuthority, []string{`"CN=registry"`, `"CN=my CA"`, "add that authority's certificate"}},
		"other name": {serve(t, ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 9)} }), ca.pem,
			ReasonWrongName, []string{"127.0.0.9", "have the certificate issued for"}},
		"expired": {serve(t, ca, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Time{}, time.Now().Add(-time.Minute) }), ca.pem,
			ReasonCertificateExpired, []string{"CN=my CA", "renew"}},
		"nobody there": {closed.Addr().String(), ca.pem, ReasonUnreachable, []string{"cannot be reached from this node", "refused", "firewall"}},
		"no TLS":       {servePlain(t), ca.pem, ReasonNoTLS, []string{"does not speak TLS", "port"}},
		"no bundle":    {"127.0.0.1:1", "", ReasonHandshakeFailed, []string{"no certificate"}},
	} {
		t.Run(name, func(t *testing.T) {
			expires, err := handshake(t.Context(), test.host, []byte(test.bundle))
			if test.reason == "" {
				if err != nil || !expires.After(time.Now()) {
					t.Errorf("not trusted: %v, expires %v", err, expires)
				}
				return
			}
			problem := new(Problem)
			if !errors.As(err, &problem) || problem.Reason != test.reason {
				t.Fatalf("%v, want the problem %s", err, test.reason)
			}
			if test.reason != ReasonHandshakeFailed && !strings.Contains(problem.Message, test.host) {
				t.Errorf("message does not name the registry: %s", problem.Message)
			}
			for _, want := range test.say {
				if !strings.Contains(problem.Message, want) {
					t.Errorf("message does not say %q: %s", want, problem.Message)
				}
			}
		})
	}
}

// servePlain answers in plain HTTP.
func servePlain(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(conn).ReadByte()
			_, _ = conn.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

func TestWhereARegistryListens(t *testing.T) {
	for host, want := range map[string][2]string{
		"harbor.example.com":      {"harbor.example.com:443", "harbor.example.com"},
		"harbor.example.com:8443": {"harbor.example.com:8443", "harbor.example.com"},
		"[fd00::5]:5000":          {"[fd00::5]:5000", "fd00::5"},
		"[fd00::5]":               {"[fd00::5]:443", "fd00::5"},
	} {
		address, name := addressOf(host)
		if got := [2]string{address, name}; got != want {
			t.Errorf("addressOf(%q) = %q, want %q", host, got, want)
		}
	}
}
