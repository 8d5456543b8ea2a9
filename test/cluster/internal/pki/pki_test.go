package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func newAuthority(t *testing.T) (*Authority, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	a, err := NewAuthority(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func TestIssuedCertificates(t *testing.T) {
	a, dir := newAuthority(t)
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("ca.crt holds no certificate")
	}
	for _, test := range []struct {
		name string
		id   Identity
		// host is what a client would call the server; empty for clients.
		host  string
		usage x509.ExtKeyUsage
		valid bool
	}{
		{"client", Identity{File: "kubelet", Name: "system:node:dgx-0", Groups: []string{"system:nodes"}}, "", x509.ExtKeyUsageClientAuth, true},
		{"client as server", Identity{File: "admin", Name: "admin"}, "", x509.ExtKeyUsageServerAuth, false},
		{"server by name", Identity{File: "api", Name: "api", DNSNames: []string{"kubernetes.default"}}, "kubernetes.default", x509.ExtKeyUsageServerAuth, true},
		{"server by address", Identity{File: "api2", Name: "api", IPs: []net.IP{net.IPv4(10, 96, 0, 1)}}, "10.96.0.1", x509.ExtKeyUsageServerAuth, true},
		{"server by another name", Identity{File: "api3", Name: "api", DNSNames: []string{"a"}}, "b", x509.ExtKeyUsageServerAuth, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := a.Issue(test.id); err != nil {
				t.Fatal(err)
			}
			pair, err := tls.LoadX509KeyPair(filepath.Join(dir, test.id.File+".crt"), filepath.Join(dir, test.id.File+".key"))
			if err != nil {
				t.Fatal(err)
			}
			if got := pair.Leaf.Subject.CommonName; got != test.id.Name {
				t.Errorf("the certificate is of %q, want %q", got, test.id.Name)
			}
			if diff := cmp.Diff(test.id.Groups, pair.Leaf.Subject.Organization); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
			_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: test.host, KeyUsages: []x509.ExtKeyUsage{test.usage}})
			if (err == nil) != test.valid {
				t.Errorf("verifying as %q: %v, want valid: %v", test.host, err, test.valid)
			}
		})
	}
}

func TestKeysAreSecret(t *testing.T) {
	a, dir := newAuthority(t)
	if err := a.ServiceAccountKey(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"ca.key", "sa.key"} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", file, info.Mode().Perm())
		}
	}
}

func TestKubeconfig(t *testing.T) {
	a, dir := newAuthority(t)
	if err := a.Issue(Identity{File: "admin", Name: "kubernetes-admin"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "kubeconfig")
	if err := a.Kubeconfig(path, "demo", "https://10.0.0.1:443", "admin"); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		CurrentContext string `json:"current-context"`
		Clusters       []struct {
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(content, &got); err != nil {
		t.Fatal(err)
	}
	if got.CurrentContext != "demo" || len(got.Clusters) != 1 || got.Clusters[0].Cluster.Server != "https://10.0.0.1:443" {
		t.Errorf("kubeconfig is\n%s", content)
	}
	if _, err := tls.X509KeyPair(got.Users[0].User.Cert, got.Users[0].User.Key); err != nil {
		t.Errorf("the user's certificate does not work: %v", err)
	}
}
