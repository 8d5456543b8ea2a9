package registrytrust

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/tools/record"
)

// node is a node with an agent.
type node struct {
	*Agent
	t        *testing.T
	events   *record.FakeRecorder
	registry *prometheus.Registry
	version  int
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, events: record.NewFakeRecorder(100), registry: prometheus.NewPedanticRegistry()}
	metrics, err := NewMetrics(n.registry)
	if err != nil {
		t.Fatal(err)
	}
	etc := t.TempDir()
	put(t, etc, map[string]string{
		"certs.d/":    "",
		"config.toml": fmt.Sprintf("version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = %q\n", filepath.Join(etc, "certs.d")),
	})
	n.Agent = New(Options{
		ConfigDir: t.TempDir(), CertsDir: filepath.Join(etc, "certs.d"), ContainerdConfig: filepath.Join(etc, "config.toml"),
		Interval: time.Hour, Retry: time.Hour, NodeName: "dgx-0", Events: n.events, Metrics: metrics,
	})
	return n
}

// mount replaces the configuration as kubelet does: by a link that points to
// the next version.
func (n *node) mount(files map[string]string) {
	n.t.Helper()
	n.version++
	version := fmt.Sprintf("..version-%d", n.version)
	put(n.t, filepath.Join(n.options.ConfigDir, version), files)
	link := filepath.Join(n.options.ConfigDir, "..data")
	if err := os.Symlink(version, link+"_tmp"); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(link+"_tmp", link); err != nil {
		n.t.Fatal(err)
	}
	for name := range files {
		if err := os.Symlink("..data/"+name, filepath.Join(n.options.ConfigDir, name)); err != nil && !os.IsExist(err) {
			n.t.Fatal(err)
		}
	}
}

// told returns the events since the last call.
func (n *node) told() string {
	var all []string
	for {
		select {
		case event := <-n.events.Events:
			all = append(all, event)
		default:
			return strings.Join(all, "\n")
		}
	}
}

func (n *node) wantTold(texts ...string) {
	n.t.Helper()
	told := n.told()
	for _, want := range texts {
		if !strings.Contains(told, want) {
			n.t.Errorf("no event says %q; there were:\n%s", want, told)
		}
	}
	if len(texts) == 0 && told != "" {
		n.t.Errorf("events, though nothing changed:\n%s", told)
	}
}

// wantMetrics compares the metrics but those that are times.
func (n *node) wantMetrics(want string) {
	n.t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	var got []string
	for _, family := range families {
		if name := family.GetName(); strings.HasSuffix(name, "_seconds") || strings.HasSuffix(name, "config_path") {
			continue
		}
		for _, metric := range family.GetMetric() {
			line := strings.TrimPrefix(family.GetName(), "eks_hybrid_dra_registry_")
			for _, label := range metric.GetLabel() {
				line += " " + label.GetValue()
			}
			got = append(got, fmt.Sprintf("%s %v", line, metric.GetGauge().GetValue()))
		}
	}
	if diff := cmp.Diff(strings.TrimSpace(want), strings.Join(got, "\n")); diff != "" {
		n.t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func (n *node) written() []string {
	n.t.Helper()
	written, err := n.store.Written()
	if err != nil {
		n.t.Fatal(err)
	}
	return written
}

func TestFromAConfigMapToATrustedRegistryAndBack(t *testing.T) {
	ca, next, wrong := newCA(t, "my CA"), newCA(t, "next CA"), newCA(t, "wrong CA")
	host := serve(t, ca, asIs)
	config := "registries:\n- host: " + host + "\n"
	n := newNode(t)
	if err := n.Ready(t.Context()); err == nil {
		t.Error("ready before the first round")
	}

	n.mount(map[string]string{ConfigFile: config, "ca.crt": ca.pem})
	n.Round(t.Context())
	n.wantTold("Normal RegistryTrusted " + host)
	n.wantMetrics("trusted " + host + " 1")
	if err := n.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if got, err := testutil.GatherAndCount(n.registry, "eks_hybrid_dra_registry_ca_expiry_timestamp_seconds", "eks_hybrid_dra_registry_certificate_expiry_timestamp_seconds"); err != nil || got != 2 {
		t.Errorf("%d times of expiry, %v", got, err)
	}
	n.Round(t.Context())
	n.wantTold()

	n.mount(map[string]string{ConfigFile: config, "ca.crt": ca.pem + next.pem})
	n.Round(t.Context())
	if bundle, err := n.store.Bundle(host); err != nil || strings.Count(string(bundle), "BEGIN") != 2 {
		t.Errorf("both CAs: %s, %v", bundle, err)
	}
	n.wantTold()

	n.mount(map[string]string{ConfigFile: config, "ca.crt": wrong.pem})
	n.Round(t.Context())
	n.wantTold("Warning RegistryNotTrusted UnknownAuthority: "+host, `issued by "CN=my CA"`, "add that authority's certificate")
	n.wantMetrics("problem UnknownAuthority " + host + " 1\ntrusted " + host + " 0")
	n.Round(t.Context())
	n.wantTold()

	n.mount(map[string]string{ConfigFile: config, "ca.crt": ca.pem})
	n.Round(t.Context())
	n.wantTold("Normal RegistryTrusted " + host)

	n.mount(map[string]string{ConfigFile: "registries: []\n"})
	n.Round(t.Context())
	n.wantMetrics("")
	if left := tree(t, n.options.CertsDir); len(left) > 0 {
		t.Errorf("left, though no registry is configured: %v", left)
	}
}

// Trust that works is not taken away by a mistake that can be seen.
func TestAMistakeLeavesWhatWorks(t *testing.T) {
	ca := newCA(t, "my CA")
	host := serve(t, ca, asIs)
	config := "registries:\n- host: " + host + "\n"
	for name, test := range map[string]struct {
		files  map[string]string
		reason Reason
		// trusted are the metrics of the registry that are still there.
		registry string
		ready    bool
	}{
		"private key":    {map[string]string{ConfigFile: config, "ca.crt": "-----BEGIN PRIVATE KEY-----"}, ReasonCAIsPrivateKey, host, true},
		"no certificate": {map[string]string{ConfigFile: config}, ReasonCAMissing, host, true},
		"expired":        {map[string]string{ConfigFile: config, "ca.crt": expiredCA(t, "old").pem}, ReasonCAExpired, host, true},
		"old and new":    {map[string]string{ConfigFile: config, "ca.crt": ca.pem + expiredCA(t, "old").pem}, ReasonCAExpired, host, true},
		"no YAML":        {map[string]string{ConfigFile: "{", "ca.crt": ca.pem}, ReasonConfigInvalid, "", false},
		"empty":          {map[string]string{ConfigFile: "", "ca.crt": ca.pem}, ReasonConfigInvalid, "", false},
		"gone":           {map[string]string{"ca.crt": ca.pem}, ReasonConfigInvalid, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.mount(map[string]string{ConfigFile: config, "ca.crt": ca.pem})
			n.Round(t.Context())
			n.told()
			before := tree(t, n.options.CertsDir)

			n.mount(test.files)
			n.Round(t.Context())

			if diff := cmp.Diff(before, tree(t, n.options.CertsDir)); diff != "" {
				t.Errorf("(-before +after):\n%s", diff)
			}
			n.wantTold("Warning RegistryTrustProblem " + string(test.reason))
			want := fmt.Sprintf("problem %s %s 1", test.reason, test.registry)
			if test.registry != "" {
				want += "\ntrusted " + host + " 1"
			}
			n.wantMetrics(want)
			if err := n.Ready(t.Context()); (err == nil) != test.ready {
				t.Errorf("ready: %v", err)
			}
		})
	}
}

func TestOneRegistryDoesNotHoldUpAnother(t *testing.T) {
	ca := newCA(t, "my CA")
	good := serve(t, ca, asIs)
	n := newNode(t)
	put(t, n.options.CertsDir, map[string]string{"foreign.example.com/hosts.toml": "server = 1"})
	n.mount(map[string]string{"ca.crt": ca.pem, ConfigFile: "registries:\n- host: foreign.example.com\n- host: " + good + "\n- host: missing.example.com\n  caFiles: [missing.crt]\n"})
	n.Round(t.Context())
	n.wantTold("Warning RegistryNotTrusted ForeignFiles", "foreign.example.com", "Normal RegistryTrusted "+good, "Warning RegistryNotTrusted CAMissing: missing.crt is to be trusted for missing.example.com")
	n.wantMetrics("problem CAMissing missing.example.com 1\nproblem ForeignFiles foreign.example.com 1\n" +
		"trusted " + good + " 1\ntrusted foreign.example.com 0\ntrusted missing.example.com 0")
	if err := n.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

func TestTheNodesOwnProblemsAreTold(t *testing.T) {
	n := newNode(t)
	n.mount(map[string]string{ConfigFile: "registries: []"})
	n.options.ContainerdConfig = filepath.Join(t.TempDir(), "config.toml")
	put(t, filepath.Dir(n.options.ContainerdConfig), map[string]string{"config.toml": "version = 2\n"})
	n.Round(t.Context())
	n.wantTold("Warning RegistryTrustProblem ConfigPathUnset", `[plugins."io.containerd.grpc.v1.cri".registry]`, n.options.CertsDir)
	n.wantMetrics("problem ConfigPathUnset  1")

	if err := os.Remove(n.options.CertsDir); err != nil {
		t.Fatal(err)
	}
	n.Round(t.Context())
	n.wantTold("WriteFailed", "mounted")
	if err := n.Ready(t.Context()); err == nil {
		t.Error("ready without a folder to write into")
	}
}

// Run sees a new version of the mounted ConfigMap at once, and leaves what it
// wrote when it ends.
func TestRunFollowsTheConfiguration(t *testing.T) {
	ca := newCA(t, "my CA")
	host := serve(t, ca, asIs)
	n := newNode(t)
	n.mount(map[string]string{ConfigFile: "registries: []"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.Run(ctx)
	}()
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !is(); {
			if time.Now().After(deadline) {
				t.Fatalf("not %s within 20 s", what)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	until("ready", func() bool { return n.Ready(ctx) == nil })
	n.mount(map[string]string{ConfigFile: "registries:\n- host: " + host + "\n", "ca.crt": ca.pem})
	until("written", func() bool { return len(n.written()) == 1 })
	until("told", func() bool { return strings.Contains(n.told(), "RegistryTrusted") })
	before := tree(t, n.options.CertsDir)
	cancel()
	<-ended
	if diff := cmp.Diff(before, tree(t, n.options.CertsDir)); diff != "" {
		t.Errorf("the end changed what was written (-before +after):\n%s", diff)
	}
}
