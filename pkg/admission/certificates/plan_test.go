package certificates

import (
	"bytes"
	"crypto/x509"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/kubernetes/fake"
)

const lifetime = 90 * 24 * time.Hour

func testOptions() Options {
	return Options{Namespace: "eks-hybrid-dra", Secret: "webhook", Service: "hook", Webhook: "eks-hybrid-dra", Lifetime: lifetime}
}

// accepts tells whether an API server that trusts the bundle accepts a server
// that serves what the Secret holds.
func accepts(t *testing.T, bundle, cert []byte, now time.Time) bool {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return false
	}
	leaf, err := x509.ParseCertificate(firstBlock(t, cert))
	if err != nil {
		t.Fatal(err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: "hook.eks-hybrid-dra.svc", Roots: roots, CurrentTime: now})
	return err == nil
}

// TestRenewalIsNeverFelt goes through the life of a certificate, step by step,
// with an API server that hears of each bundle only later.
func TestRenewalIsNeverFelt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(fake.NewClientset(), testOptions())
		start := time.Now()
		var data map[string][]byte
		var trusted []byte
		served := map[string]bool{}
		for steps := 0; time.Since(start) < lifetime-time.Hour; steps++ {
			if steps > 100 {
				t.Fatalf("no end of steps by %s", time.Since(start))
			}
			p, err := c.next(data, func(p *pair) bool { return trusts(trusted, p) }, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case p.secret != nil:
				// The API server has not heard of the new bundle.
				if data != nil && !accepts(t, trusted, p.secret[keyCert], time.Now()) {
					t.Fatalf("after %s a certificate is served that is not trusted: %s", time.Since(start), p.why)
				}
				data = p.secret
			case !bytes.Equal(p.bundle, trusted):
				// A replica may still serve the old certificate.
				for cert := range served {
					if !accepts(t, p.bundle, []byte(cert), time.Now()) {
						t.Fatalf("after %s what was served is not trusted any more", time.Since(start))
					}
				}
				trusted = p.bundle
			default:
				if !accepts(t, trusted, data[keyCert], time.Now()) {
					t.Fatalf("after %s what is served is not trusted", time.Since(start))
				}
				served[string(data[keyCert])] = true
				if !p.again.After(time.Now()) {
					t.Fatalf("nothing to do after %s, but to be looked at again at once", time.Since(start))
				}
				<-time.After(time.Until(p.again))
			}
		}
		if len(served) != 2 {
			t.Errorf("%d certificates were served in one lifetime, want the first and its successor", len(served))
		}
		if data[keyNextCert] != nil {
			t.Error("the successor is still kept as the next one")
		}
	})
}

func TestPlan(t *testing.T) {
	c := New(fake.NewClientset(), testOptions())
	now := time.Now()
	first, err := c.next(nil, func(*pair) bool { return false }, now)
	if err != nil {
		t.Fatal(err)
	}
	change := func(changes map[string][]byte) map[string][]byte {
		data := maps.Clone(first.secret)
		maps.Copy(data, changes)
		return data
	}
	other := New(fake.NewClientset(), Options{Namespace: "old", Secret: "s", Service: "old", Webhook: "w", Lifetime: lifetime})
	renamed, err := other.next(nil, func(*pair) bool { return false }, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		data  map[string][]byte
		at    time.Duration
		write bool
		// anew is whether another certificate is served from now on.
		anew, next bool
	}{
		"good":                        {data: first.secret},
		"empty":                       {data: map[string][]byte{}, write: true, anew: true},
		"not PEM":                     {data: change(map[string][]byte{keyCert: []byte("x")}), write: true, anew: true},
		"another's key":               {data: change(map[string][]byte{keyKey: renamed.secret[keyKey]}), write: true, anew: true},
		"for another name":            {data: renamed.secret, write: true, anew: true},
		"expired":                     {data: first.secret, at: lifetime, write: true, anew: true},
		"two thirds over":             {data: first.secret, at: lifetime * 2 / 3, write: true, next: true},
		"odd bundle":                  {data: change(map[string][]byte{keyBundle: []byte("x")})},
		"a next one that is no use":   {data: change(map[string][]byte{keyNextCert: []byte("x"), keyNextKey: []byte("y")})},
		"expired, but there is a new": {data: map[string][]byte{keyNextCert: first.secret[keyCert], keyNextKey: first.secret[keyKey]}, write: true, anew: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := c.next(test.data, func(*pair) bool { return true }, now.Add(test.at))
			if err != nil {
				t.Fatal(err)
			}
			if (p.secret != nil) != test.write {
				t.Fatalf("want something written: %v, got %q", test.write, p.why)
			}
			if !test.write {
				if !accepts(t, p.bundle, test.data[keyCert], now) {
					t.Error("what is served is not trusted")
				}
				return
			}
			if p.why == "" {
				t.Error("no reason is told")
			}
			if anew := !bytes.Equal(p.secret[keyCert], test.data[keyCert]); anew != test.anew {
				t.Errorf("another certificate is served: %v, want %v", anew, test.anew)
			}
			if next := p.secret[keyNextCert] != nil; next != test.next {
				t.Errorf("there is a next certificate: %v, want %v", next, test.next)
			}
		})
	}
}
