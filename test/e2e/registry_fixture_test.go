package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// authority is a private certificate authority.
type authority struct {
	name        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	// pem is the certificate, for those who are to trust it.
	pem string
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	a := authority{name: name, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.certificate, a.pem = issue(t, template, template, a.key, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func issue(t *testing.T, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, string) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// registryServer is a registry on the node, in whose network nobody else is.
type registryServer struct {
	host, dir, program string
	stop               func()
}

// buildRegistry builds the program of distribution.
func buildRegistry(t *testing.T) string {
	t.Helper()
	program := filepath.Join(cluster.Root, "bin", "registry")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join(cluster.Root, "test", "registry"),
		"-trimpath", "-ldflags=-s -w", "-o", program, "github.com/distribution/distribution/v3/cmd/registry")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the registry: %v\n%s", err, out)
	}
	return program
}

// newRegistry is a registry that does not run yet.
func newRegistry(t *testing.T, program, address, port string) *registryServer {
	t.Helper()
	r := &registryServer{host: net.JoinHostPort(address, port), dir: t.TempDir(), program: program, stop: func() {}}
	config := fmt.Sprintf(`version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: %[1]s/images}}
http:
  addr: %[2]q
  tls: {certificate: %[1]s/tls.crt, key: %[1]s/tls.key}
`, r.dir, r.host)
	r.write(t, "config.yml", config)
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *registryServer) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serve starts the registry, again if it runs, with a certificate from the
// authority.
func (r *registryServer) serve(t *testing.T, ca authority) {
	t.Helper()
	r.stop()
	host, _, err := net.SplitHostPort(r.host)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	_, certificate := issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry"}, IPAddresses: []net.IP{net.ParseIP(host)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.certificate, key, ca.key)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, "tls.crt", certificate)
	r.write(t, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	r.write(t, "ca.crt", ca.pem)

	ctx, cancel := context.WithCancel(context.Background())
	var served error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, served = cluster.OnNode(ctx, r.program, "serve", filepath.Join(r.dir, "config.yml"))
	}()
	r.stop = func() {
		cancel()
		<-ended
		r.stop = func() {}
	}
	// Pushing again what is there is how it shows that it answers.
	deadline, cancelDeadline := context.WithTimeout(t.Context(), patience)
	defer cancelDeadline()
	for {
		_, err := cluster.OnNode(deadline, "ctr", "--namespace", "k8s.io", "images", "push", "--local",
			"--tlscacert", filepath.Join(r.dir, "ca.crt"), r.image(), registryImage)
		if err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("the registry on %s ended: %v", r.host, served)
		case <-deadline.Done():
			t.Fatalf("pushing to the registry on %s: %v", r.host, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// registryImage is what the image in the registry is a copy of: one that no pod
// of another test uses. Kubelet notes that it has pulled it, and from then on
// checks of whoever uses the same image under another name that he could pull it
// there.
const registryImage = "localhost/pause:1"

func (r *registryServer) image() string { return r.host + "/team/app:1" }

// pullsNow makes a pod whose image has to be pulled, and returns it once that
// was done.
func (s *space) pullsNow(name, image string) {
	s.t.Helper()
	s.create(pullingPod(name, image))
	s.wait(name, harness.Running())
	s.delete(name)
}

// wantPullFails makes a pod whose image has to be pulled, and returns when it
// tells people why it was not.
func (s *space) wantPullFails(name, image string, why ...string) {
	s.t.Helper()
	s.create(pullingPod(name, image))
	waiting := ""
	s.wait(name, harness.PodCondition{Name: "say why its image is not pulled: " + strings.Join(why, ", "), Met: func(pod *corev1.Pod) (bool, error) {
		for _, status := range pod.Status.ContainerStatuses {
			if status.State.Waiting == nil {
				continue
			}
			waiting = status.State.Waiting.Message
			said := status.State.Waiting.Reason == "ImagePullBackOff"
			for _, text := range why {
				said = said && strings.Contains(waiting, text)
			}
			return said, nil
		}
		return false, nil
	}})
	s.t.Logf("pod %s: %s", name, waiting)
	s.delete(name)
}

func pullingPod(name, image string) *corev1.Pod {
	zero := int64(0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &zero,
			Containers: []corev1.Container{{
				Name: "work", Image: image, ImagePullPolicy: corev1.PullAlways,
			}},
		},
	}
}
