package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	registryTrust         = "eks-hybrid-dra-registry-trust"
	registryTrustPods     = "app.kubernetes.io/component=registry-trust"
	registryTrustFolder   = "deployments/manifests/registry-trust"
	certsFolder           = "/etc/containerd/certs.d"
	unknownAuthority      = "certificate signed by unknown authority"
	foreignHost           = "foreign.example.com"
	foreignSettings       = "server = \"https://mirror.example.com\"\n"
	registryTrustReported = 90 * time.Second
)

// Two real registries with certificates of a private authority each, from which
// containerd pulls as soon as registry-trust has told it about the authority,
// and not before; through a change of the authority, a mistake, and the removal.
func TestContainerdTrustsPrivateRegistries(t *testing.T) {
	s := newSpace(t, nil)
	address := s.nodeAddress()
	program := buildRegistry(t)
	first, second := newAuthority(t, "first CA"), newAuthority(t, "second CA")
	one, two := newRegistry(t, program, address, "5443"), newRegistry(t, program, address, "5444")
	one.serve(t, first)
	two.serve(t, second)
	s.node("mkdir", "-p", certsFolder+"/"+foreignHost)
	s.node("sh", "-c", fmt.Sprintf("printf '%s' > %s/%s/hosts.toml", strings.ReplaceAll(foreignSettings, "\n", `\n`), certsFolder, foreignHost))
	t.Cleanup(func() { s.node("rm", "-r", certsFolder+"/"+foreignHost) })
	before := s.certs()
	s.wantPullFails("before", one.image(), unknownAuthority)

	trust := newTrust(s, fmt.Sprintf(`registries:
- host: %s
- host: %s
  caFiles: [other.crt]
- host: %s
`, one.host, two.host, foreignHost))
	trust.configure(map[string]string{"ca.crt": first.pem, "other.crt": second.pem})
	trust.apply(registryTrustFolder)
	s.pullsNow("one", one.image())
	s.pullsNow("two", two.image())
	trust.reports(one.host, 1, "")
	trust.reports(two.host, 1, "")
	trust.event(one.host + ": its certificate is trusted")
	trust.reports(foreignHost, 0, "ForeignFiles")
	trust.event(certsFolder + "/" + foreignHost + " holds files that registry-trust did not write")
	trust.saysMetric("eks_hybrid_dra_registry_containerd_config_path{state=\"set\"} 1\n")

	// The authority changes: first both are trusted, then the registry has a
	// certificate from the new one, then the old one is trusted no more.
	trust.configure(map[string]string{"ca.crt": first.pem + second.pem, "other.crt": second.pem})
	s.waitCertificates(one.host, 2)
	one.serve(t, second)
	s.pullsNow("rotated", one.image())
	trust.configure(map[string]string{"ca.crt": second.pem, "other.crt": second.pem})
	s.waitCertificates(one.host, 1)
	s.pullsNow("only-new", one.image())

	wrong := newAuthority(t, "wrong CA")
	trust.configure(map[string]string{"ca.crt": wrong.pem, "other.crt": second.pem})
	trust.reports(one.host, 0, "UnknownAuthority")
	trust.event(one.host + ` shows a certificate for "CN=registry" that was issued by "CN=second CA", which is none of the authorities that were given`)
	s.wantPullFails("wrong", one.image(), unknownAuthority)
	s.pullsNow("other-still-works", two.image())

	trust.configure(map[string]string{"ca.crt": second.pem, "other.crt": second.pem})
	trust.reports(one.host, 1, "")
	trust.eventAgain(one.host + ": its certificate is trusted")

	// A mistake that can be seen does no harm.
	trust.configure(map[string]string{"ca.crt": "-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----\n", "other.crt": second.pem})
	trust.reports(one.host, 1, "CAIsPrivateKey")
	s.pullsNow("in-spite-of-a-mistake", one.image())
	trust.configure(map[string]string{"ca.crt": second.pem, "other.crt": second.pem})
	trust.reports(one.host, 1, "")

	trust.replacePod()
	s.pullsNow("after-a-restart", one.image())

	trust.apply(registryTrustFolder + "/remove")
	if diff := cmp.Diff(before, s.certs()); diff != "" {
		t.Errorf("%s is not as before (-before +after):\n%s", certsFolder, diff)
	}
	s.wantPullFails("removed", one.image(), unknownAuthority)

	trust.apply(registryTrustFolder)
	s.pullsNow("again", one.image())
	trust.knowsWhenContainerdDoesNotLook(one)
	trust.uninstall()
	if diff := cmp.Diff(before, s.certs()); diff != "" {
		t.Errorf("%s is not as before, after registry-trust uninstall (-before +after):\n%s", certsFolder, diff)
	}
}

// knowsWhenContainerdDoesNotLook compares what is said about config_path with
// what containerd does.
func (tr *trust) knowsWhenContainerdDoesNotLook(registry *registryServer) {
	tr.t.Helper()
	const file, list = "/etc/containerd/config.toml", certsFolder + ":/etc/docker/certs.d"
	original := tr.node("cat", file)
	kept := filepath.Join(tr.t.TempDir(), "config.toml")
	use := func(content string) {
		tr.t.Helper()
		if err := os.WriteFile(kept, []byte(content), 0o600); err != nil {
			tr.t.Fatal(err)
		}
		tr.node("cp", kept, file)
		tr.restart(harness.Containerd)
	}
	defer use(original)
	for i, test := range []struct {
		name, config string
		state        string
		pulls        bool
	}{
		{"list", strings.Replace(original, certsFolder, list, 1), "list", false},
		{"list-local-pull", strings.Replace(strings.Replace(original, certsFolder, list, 1), "  snapshotter =", "  discard_unpacked_layers = true\n  snapshotter =", 1), "set", true},
		// The default of containerd 2 is the list.
		{"unset", strings.Replace(original, `config_path = "`+certsFolder+`"`, "", 1), "unset", false},
	} {
		if test.config == original {
			tr.t.Fatalf("%s was not changed:\n%s", file, original)
		}
		use(test.config)
		// A change of the configuration starts a new look at everything.
		tr.registries += fmt.Sprintf("# %d\n", i)
		tr.configure(tr.files)
		tr.saysMetric(fmt.Sprintf("eks_hybrid_dra_registry_containerd_config_path{state=%q} 1\n", test.state))
		if test.pulls {
			tr.pullsNow(test.name, registry.image())
		} else {
			tr.wantPullFails(test.name, registry.image(), unknownAuthority)
		}
	}
}

// saysMetric returns when the metrics have the line.
func (tr *trust) saysMetric(line string) {
	tr.t.Helper()
	tr.eventually("the metrics say "+line, func(context.Context) (bool, error) { return strings.Contains(tr.metrics(), line), nil })
}

// trust is registry-trust, installed from its plain manifests.
type trust struct {
	*space
	registries string
	// files are the certificates that were given last.
	files map[string]string
}

func newTrust(s *space, registries string) *trust {
	tr := &trust{space: s, registries: registries}
	s.t.Cleanup(func() {
		// After a failure its files may still be there.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), patience)
		defer cancel()
		if s.t.Failed() {
			if logs, err := cluster.Kubectl(ctx, "logs", "-n", harness.Namespace, "daemonset/"+registryTrust, "--tail=100"); err == nil {
				s.t.Logf("registry-trust logged:\n%s", logs)
			}
			_, _ = cluster.Kubectl(ctx, "apply", "-k", registryTrustFolder+"/remove")
			_ = cluster.WaitDaemonSet(ctx, harness.Namespace, registryTrust)
		}
		if _, err := cluster.Kubectl(ctx, "delete", "--ignore-not-found", "-k", registryTrustFolder); err != nil {
			s.t.Error(err)
		}
		if err := cluster.Client.CoreV1().ConfigMaps(harness.Namespace).Delete(ctx, registryTrust, metav1.DeleteOptions{}); err != nil {
			s.t.Error(err)
		}
	})
	return tr
}

// configure makes or changes the ConfigMap.
func (tr *trust) configure(files map[string]string) {
	tr.t.Helper()
	tr.files = files
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: registryTrust}, Data: map[string]string{"registries.yaml": tr.registries}}
	for name, content := range files {
		config.Data[name] = content
	}
	maps := cluster.Client.CoreV1().ConfigMaps(harness.Namespace)
	_, err := maps.Update(tr.ctx, config, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = maps.Create(tr.ctx, config, metav1.CreateOptions{})
	}
	if err != nil {
		tr.t.Fatal(err)
	}
	// kubelet looks at what a pod mounts when the pod changes, and else from
	// time to time. There is no pod yet, or one.
	_, err = cluster.Kubectl(tr.ctx, "annotate", "--overwrite", "pod", "-n", harness.Namespace, "-l", registryTrustPods, "test/configured="+time.Now().Format("150405.000"))
	if err != nil {
		tr.t.Fatal(err)
	}
}

// apply applies manifests and returns when the node runs them.
func (tr *trust) apply(folder string) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.ctx, patience)
	defer cancel()
	if err := cluster.ApplyKustomization(ctx, folder); err != nil {
		tr.t.Fatal(err)
	}
	if err := cluster.WaitDaemonSet(ctx, harness.Namespace, registryTrust); err != nil {
		tr.t.Fatal(err)
	}
}

// uninstall has all nodes remove what was written, as the chart does it.
func (tr *trust) uninstall() {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.ctx, patience)
	defer cancel()
	run := exec.CommandContext(ctx, "go", "run", "./cmd/registry-trust", "uninstall", "--kubeconfig", cluster.Kubeconfig)
	run.Dir = cluster.Root
	if out, err := run.CombinedOutput(); err != nil {
		tr.t.Fatalf("registry-trust uninstall: %v\n%s", err, out)
	}
}

// replacePod ends the pod, after which what it wrote is still there, and
// returns when the next one is ready.
func (tr *trust) replacePod() {
	tr.t.Helper()
	written := tr.certs()
	if _, err := cluster.Kubectl(tr.ctx, "delete", "pod", "-n", harness.Namespace, tr.podName(), "--wait"); err != nil {
		tr.t.Fatal(err)
	}
	if diff := cmp.Diff(written, tr.certs()); diff != "" {
		tr.t.Errorf("the end of the pod changed %s (-before +after):\n%s", certsFolder, diff)
	}
	ctx, cancel := context.WithTimeout(tr.ctx, patience)
	defer cancel()
	if err := cluster.WaitDaemonSet(ctx, harness.Namespace, registryTrust); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *trust) podName() string {
	tr.t.Helper()
	pods, err := cluster.Client.CoreV1().Pods(harness.Namespace).List(tr.ctx, metav1.ListOptions{LabelSelector: registryTrustPods})
	if err != nil {
		tr.t.Fatal(err)
	}
	if len(pods.Items) != 1 {
		tr.t.Fatalf("registry-trust has %d pods, want 1", len(pods.Items))
	}
	return pods.Items[0].Name
}

func (tr *trust) metrics() string {
	tr.t.Helper()
	text, err := cluster.Client.CoreV1().Pods(harness.Namespace).ProxyGet("http", tr.podName(), "9466", "/metrics", nil).DoRaw(tr.ctx)
	if err != nil {
		tr.t.Fatal(err)
	}
	return string(text)
}

// reports returns when the metrics say whether the registry is trusted, and
// name this problem or none.
func (tr *trust) reports(host string, trusted int, problem string) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.ctx, registryTrustReported)
	defer cancel()
	value := fmt.Sprintf("eks_hybrid_dra_registry_trusted{registry=%q} %d\n", host, trusted)
	problems := regexp.MustCompile(fmt.Sprintf(`eks_hybrid_dra_registry_problem\{reason="(\w+)",registry=%q\} 1`, host))
	text := ""
	err := wait.PollUntilContextCancel(ctx, 500*time.Millisecond, true, func(context.Context) (bool, error) {
		text = tr.metrics()
		named := ""
		for _, match := range problems.FindAllStringSubmatch(text, -1) {
			named += match[1]
		}
		return strings.Contains(text, value) && named == problem, nil
	})
	if err != nil {
		tr.t.Fatalf("waiting for metrics that say that %s is trusted: %d, problem: %q: %v; they are:\n%s", host, trusted, problem, err, ours(text))
	}
}

// event returns when the node has an event with the text.
func (tr *trust) event(text string) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.ctx, patience)
	defer cancel()
	if _, err := cluster.WaitEvent(ctx, metav1.NamespaceDefault, tr.onlyNode().Name, text); err != nil {
		tr.t.Error(err)
	}
}

// eventAgain returns when such an event was counted a second time, which takes
// the right to patch it.
func (tr *trust) eventAgain(text string) {
	tr.t.Helper()
	node := tr.onlyNode().Name
	tr.eventually("an event is told again: "+text, func(ctx context.Context) (bool, error) {
		events, err := cluster.Client.CoreV1().Events(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + node})
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return strings.Contains(e.Message, text) && e.Count > 1 }), nil
	})
}

func (s *space) onlyNode() *corev1.Node {
	s.t.Helper()
	nodes, err := cluster.Client.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		s.t.Fatalf("want one node, got %d: %v", len(nodes.Items), err)
	}
	return &nodes.Items[0]
}

func (s *space) nodeAddress() string {
	s.t.Helper()
	for _, address := range s.onlyNode().Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return address.Address
		}
	}
	s.t.Fatal("the node has no address")
	return ""
}

// node runs a program on the node.
func (s *space) node(program ...string) string {
	s.t.Helper()
	out, err := cluster.OnNode(s.ctx, program...)
	needNode(s.t, err)
	return out
}

// certs are all files and folders of containerd's settings, with their content.
func (s *space) certs() string {
	s.t.Helper()
	return s.node("sh", "-c", "cd "+certsFolder+" && find . | sort && find . -type f | sort | xargs -r head -n 100")
}

// waitCertificates returns when so many certificates are trusted for the
// registry.
func (s *space) waitCertificates(host string, count int) {
	s.t.Helper()
	file := certsFolder + "/" + strings.ReplaceAll(host, ":", "_") + "_/ca.crt"
	s.eventually(fmt.Sprintf("%s has %d certificates", file, count), func(ctx context.Context) (bool, error) {
		out, err := cluster.OnNode(ctx, "cat", file)
		return strings.Count(out, "BEGIN CERTIFICATE") == count, err
	})
}
