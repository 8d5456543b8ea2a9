package certificates

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2/ktesting"
)

func firstBlock(t *testing.T, certs []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(certs)
	if block == nil {
		t.Fatalf("no PEM: %q", certs)
	}
	return block.Bytes
}

// TestTwoReplicas has both serve the certificate that one of them made, whichever
// leads: a leader that serves no webhook makes none.
func TestTwoReplicas(t *testing.T) {
	_, ctx := ktesting.NewTestContext(t)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := testOptions()
	client := fake.NewClientset(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Secret}},
		&admissionv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: o.Webhook},
			Webhooks:   []admissionv1.ValidatingWebhook{{Name: "claims"}, {Name: "pods"}},
		})
	one, other := New(client, o), New(client, o)
	if err := other.Ready(); err == nil || !strings.Contains(err.Error(), "eks-hybrid-dra/webhook") {
		t.Errorf("want an error that names the Secret, got %v", err)
	}
	var running wait.Group
	defer running.Wait()
	defer cancel()
	for _, r := range []Runnable{one.Serving(), one.Keeping(), other.Serving(), other.Keeping()} {
		if r.NeedLeaderElection() {
			t.Error("something waits for a leader")
		}
		running.Start(func() {
			if err := r.Start(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, func() bool { return one.Ready() == nil && other.Ready() == nil })
	accepted := func() bool {
		w, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, o.Webhook, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, hook := range w.Webhooks {
			for _, replica := range []*Certificates{one, other} {
				if shakeHands(t, replica, hook.ClientConfig.CABundle) != nil {
					return false
				}
			}
		}
		return true
	}
	until(t, accepted)

	// Somebody empties the Secret; what is in memory serves on, and a new
	// certificate comes.
	before := one.served.Load()
	if _, err := client.CoreV1().Secrets(o.Namespace).Update(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Secret}}, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return one.served.Load() != before })
	until(t, accepted)
}

func TestMetricOfTheCertificate(t *testing.T) {
	registry := prometheus.NewRegistry()
	c := New(fake.NewClientset(), testOptions())
	if err := c.Register(registry); err != nil {
		t.Fatal(err)
	}
	if families, err := registry.Gather(); err != nil || len(families) != 0 {
		t.Errorf("no certificate yet: got %v, %v", families, err)
	}
	p, err := makePair([]string{"webhook.example.svc"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c.served.Store(&p.serving)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("got %v, %v", families, err)
	}
	if got, want := families[0].GetMetric()[0].GetGauge().GetValue(), float64(p.leaf.NotAfter.Unix()); got != want {
		t.Errorf("%s is %v, want %v", families[0].GetName(), got, want)
	}
}

func until(t *testing.T, condition func() bool) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) { return condition(), nil }); err != nil {
		t.Fatal(err)
	}
}

// shakeHands connects to a replica as an API server that trusts the bundle.
func shakeHands(t *testing.T, c *Certificates, bundle []byte) error {
	t.Helper()
	config := &tls.Config{}
	c.Configure(config)
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	go func() { _ = tls.Server(there, config).HandshakeContext(t.Context()) }()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	return tls.Client(here, &tls.Config{RootCAs: roots, ServerName: "hook.eks-hybrid-dra.svc"}).HandshakeContext(t.Context())
}

func TestSecretThatIsNotThere(t *testing.T) {
	c := New(fake.NewClientset(), testOptions())
	_, err := c.step(t.Context())
	if err == nil || !strings.Contains(err.Error(), "eks-hybrid-dra/webhook") || !strings.Contains(err.Error(), "apply the manifests") {
		t.Errorf("want an error with the Secret and the way out, got %v", err)
	}
}
