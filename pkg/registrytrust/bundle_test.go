package registrytrust

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestABundleHoldsTheCertificatesAndNothingElse(t *testing.T) {
	one, two, old := newCA(t, "one"), newCA(t, "two"), expiredCA(t, "old")
	b, err := newBundle([]caFile{
		{"a.crt", []byte("Subject: CN=one\n" + one.pem + "\n" + old.pem)},
		{"b.crt", []byte(one.pem + two.pem)},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one.pem+two.pem, string(b.PEM)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if b.Expired == nil || b.Expired.Reason != ReasonCAExpired || !strings.Contains(b.Expired.Message, `"CN=old" in a.crt expired on`) {
		t.Errorf("the one that has expired: %+v", b.Expired)
	}
}

func TestWhatIsNoCAIsRefused(t *testing.T) {
	ca := newCA(t, "my CA")
	leaf := newCertificate(t, "harbor", &ca, asIs)
	noSigner := newCertificate(t, "no signer", nil, func(c *x509.Certificate) {
		asCA(c)
		c.KeyUsage = x509.KeyUsageDigitalSignature
	})
	key, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	for name, test := range map[string]struct {
		content string
		reason  Reason
		say     []string
	}{
		"empty":               {"", ReasonCAInvalid, []string{"harbor.crt", "-----BEGIN CERTIFICATE-----"}},
		"DER":                 {string(ca.Raw), ReasonCAInvalid, []string{"openssl x509 -inform der"}},
		"private key":         {keyPEM, ReasonCAIsPrivateKey, []string{"harbor.crt holds a private key", "replace the key"}},
		"key and certificate": {ca.pem + keyPEM, ReasonCAIsPrivateKey, []string{"private key"}},
		"half a key":          {ca.pem + "-----BEGIN RSA PRIVATE KEY-----\nabc", ReasonCAIsPrivateKey, []string{"private key"}},
		"request":             {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")})), ReasonCAInvalid, []string{"certificate request"}},
		"cut off":             {ca.pem + ca.pem[:len(ca.pem)/2], ReasonCAInvalid, []string{"2 certificates of which only 1"}},
		"broken":              {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), ReasonCAInvalid, []string{"certificate 1 in harbor.crt is broken"}},
		"server certificate":  {leaf.pem, ReasonCAIsNoCA, []string{`"CN=harbor"`, "CN=my CA"}},
		"one among others":    {ca.pem + leaf.pem, ReasonCAIsNoCA, []string{"certificate 2 in harbor.crt"}},
		"may not sign":        {noSigner.pem, ReasonCAIsNoCA, []string{"may not sign certificates"}},
		"expired":             {expiredCA(t, "old").pem, ReasonCAExpired, []string{`"CN=old" in harbor.crt expired on`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newBundle([]caFile{{"harbor.crt", []byte(test.content)}}, time.Now())
			problem := new(Problem)
			if !errors.As(err, &problem) {
				t.Fatalf("no problem: %v", err)
			}
			if problem.Reason != test.reason {
				t.Errorf("reason %s, want %s", problem.Reason, test.reason)
			}
			for _, want := range test.say {
				if !strings.Contains(problem.Message, want) {
					t.Errorf("message does not say %q: %s", want, problem.Message)
				}
			}
			if strings.Contains(problem.Message, "MHc") || strings.Contains(problem.Message, "BEGIN RSA") {
				t.Errorf("the message has the key in it: %s", problem.Message)
			}
		})
	}
}

// Whatever is accepted can be used by containerd, and holds no key.
func FuzzNewBundle(f *testing.F) {
	// Always the same, so that what was found before is of use.
	const ca = `-----BEGIN CERTIFICATE-----
MIIBUDCB96ADAgECAgEBMAoGCCqGSM49BAMCMA8xDTALBgNVBAMTBGZ1enowIBcN
MjUwMTAxMDAwMDAwWhgPMjEyNTAxMDEwMDAwMDBaMA8xDTALBgNVBAMTBGZ1enow
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASyDB6sFalB7NfTe7z8bbkR614sP1Ch
MSxX3w2/6SBQ+Nu/JpXnYGHHBmA3CFc8r3/KpOOSNfUOeVBFuQSB82YYo0IwQDAO
BgNVHQ8BAf8EBAMCAgQwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQU+w/dhYZG
A1vEs/sZmIgfTYIKTSYwCgYIKoZIzj0EAwIDSAAwRQIhAMJ45EGsRagCwd+Oy/kk
NV9O/RXGvtjL9XUGn9Bx+58XAiAte+4qUCstoX+zZgBm3Krm+WV2rCoDcgvVouuM
YgcWwA==
-----END CERTIFICATE-----
`
	f.Add([]byte(ca))
	f.Add([]byte("text\n" + ca + ca))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		b, err := newBundle([]caFile{{"ca.crt", content}}, time.Now())
		if err != nil {
			if problem := new(Problem); !errors.As(err, &problem) {
				t.Errorf("not a problem: %v", err)
			}
			return
		}
		if !x509.NewCertPool().AppendCertsFromPEM(b.PEM) || strings.Contains(string(b.PEM), "PRIVATE KEY") {
			t.Errorf("bundle of no use: %s", b.PEM)
		}
		if firstExpiry(b.PEM).IsZero() {
			t.Error("it never expires")
		}
	})
}
