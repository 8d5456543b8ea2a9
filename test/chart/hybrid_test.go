package chart

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// hybridValues are what the controller, the plugin and registry-trust are to do
// for hybrid nodes. The certificate is to be filled in.
const hybridValues = `
simulate: dgx-h200
nodeConfig:
  nodeLabels: {enabled: true}
hybrid:
  cniAffinity:
    daemonSets: [{namespace: cni, name: cni-agent, nodes: hybrid}]
  registry:
    enabled: true
    registries: [{host: harbor.example.com}]
    caFiles:
      ca.crt: %q
    pullSecret: {name: pull, namespaces: [cni]}
`

// What was done to others' objects, and on the nodes for containerd, is undone,
// also when the first try ends in its middle, is given up, and is tried again.
func TestUninstallUndoesWhatWasDoneForHybridNodes(t *testing.T) {
	s := newSite(t)
	s.must(ignoreExists(s.kubectlErr("create", "namespace", "cni")))
	t.Cleanup(func() { s.kubectl("delete", "namespace", "cni", "--wait") })
	s.must(cluster.WaitNamespace(s.patient(), "cni"))
	former := s.networkPlugin()
	before := s.before(harness.Namespace)
	s.kubectl("create", "secret", "docker-registry", "pull", "-n", harness.Namespace, "--docker-server=harbor.example.com", "--docker-username=u", "--docker-password=p")
	values := filepath.Join(t.TempDir(), "values.yaml")
	s.must(os.WriteFile(values, fmt.Appendf(nil, hybridValues, newAuthority(t)), 0o600))
	s.mustHelm("install", release, source, "--namespace", harness.Namespace, "--values", values)
	s.must(cluster.WaitDriver(s.patient()))
	s.until("done for hybrid nodes", func() error { return s.doneForHybridNodes(former) })
	s.besideOneThatKeepsCNIs()

	s.killed()
	s.mustHelm("rollback", release, "1", "--namespace", harness.Namespace, "--timeout", patience.String())
	if _, err := cluster.WaitDevices(s.patient(), gpusPerNode); err != nil {
		t.Error(err)
	}
	s.mustHelm("uninstall", release, "--namespace", harness.Namespace)
	s.kubectl("delete", "secret", "pull", "-n", harness.Namespace)
	s.wantNothingLeft(before)
	if diff := cmp.Diff(former, s.affinity()); diff != "" {
		t.Errorf("the network plugin's affinity (-before +after):\n%s", diff)
	}
	if labels := s.nodeLabels(); strings.Contains(labels, "gpu") {
		t.Errorf("the node's labels: %s", labels)
	}
}

// besideOneThatKeepsCNIs has a second release, for another driver and no node. It
// must not keep CNIs, nor give back what the first one keeps.
func (s *site) besideOneThatKeepsCNIs() {
	s.t.Helper()
	second := []string{
		"second", source, "--namespace", "default", "--set", "driver.name=second,webhook.enabled=false,uninstall.enabled=false",
		"--set", "kubeletPlugin.nodeSelector.no=node,controller.nodeSelector.no=node",
	}
	keeping := append(slices.Clone(second), "--set", "hybrid.cniAffinity.daemonSets[0].preset=cilium")
	out, err := s.helm(append([]string{"install"}, keeping...)...)
	if want := "another release keeps CNIs on their nodes already, by its ConfigMap " + harness.Namespace + "/" + release + "-hybrid"; err == nil || !strings.Contains(out, want) {
		s.t.Errorf("got %v, want %q in\n%s", err, want, out)
	}
	s.mustHelm(append([]string{"install"}, second...)...)
	s.mustHelm(append([]string{"upgrade"}, second...)...)
	if maps := s.kubectl("get", "configmaps", "-n", "default", "-o", "name"); strings.Contains(maps, "-hybrid\n") || !strings.Contains(maps, "/second-eks-hybrid-dra\n") {
		s.t.Errorf("the second release has %s", maps)
	}
	s.mustHelm("uninstall", "second", "--namespace", "default")
}

// newAuthority is the certificate of an authority, in PEM.
func newAuthority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (s *site) kubectlErr(args ...string) error {
	_, err := cluster.Kubectl(s.ctx, args...)
	return err
}

func ignoreExists(err error) error {
	if err != nil && strings.Contains(err.Error(), "AlreadyExists") {
		return nil
	}
	return err
}

// networkPlugin makes a DaemonSet such as that of a network plugin, and returns
// its affinity.
func (s *site) networkPlugin() *corev1.Affinity {
	s.t.Helper()
	labels := map[string]string{"app": "cni-agent"}
	_, err := cluster.Client.AppsV1().DaemonSets("cni").Create(s.ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "cni-agent"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
						NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
							{Key: "kubernetes.io/os", Operator: corev1.NodeSelectorOpIn, Values: []string{"windows"}},
						}}},
					}}},
					Containers: []corev1.Container{{Name: "agent", Image: "busybox:1.36", Command: []string{"sleep", "infinity"}}},
				},
			},
		},
	}, metav1.CreateOptions{})
	s.must(err)
	return s.affinity()
}

func (s *site) affinity() *corev1.Affinity {
	s.t.Helper()
	set, err := cluster.Client.AppsV1().DaemonSets("cni").Get(s.ctx, "cni-agent", metav1.GetOptions{})
	s.must(err)
	return set.Spec.Template.Spec.Affinity
}

func (s *site) nodeLabels() string {
	s.t.Helper()
	return s.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.labels}")
}

// doneForHybridNodes says what is missing.
func (s *site) doneForHybridNodes(former *corev1.Affinity) error {
	var errs []error
	if cmp.Equal(former, s.affinity()) {
		errs = append(errs, errors.New("the network plugin's affinity is as before"))
	}
	if !strings.Contains(s.nodeLabels(), "gpu") {
		errs = append(errs, errors.New("the node has no labels"))
	}
	errs = append(errs, s.kubectlErr("get", "secret", "-n", "cni", "pull"))
	if _, err := cluster.OnNode(s.ctx, "ls", "/etc/containerd/certs.d/harbor.example.com/ca.crt"); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// killed uninstalls, and kills what does it in the middle.
func (s *site) killed() {
	s.t.Helper()
	type result struct {
		out string
		err error
	}
	ended := make(chan result, 1)
	go func() {
		out, err := s.helm("uninstall", release, "--namespace", harness.Namespace)
		ended <- result{out, err}
	}()
	s.until("in the middle", func() error {
		set, err := cluster.Client.AppsV1().DaemonSets(harness.Namespace).Get(s.ctx, harness.Plugin, metav1.GetOptions{})
		if err == nil && set.Spec.Template.Spec.Containers[0].Args[0] != "remove" {
			err = errors.New("the plugin is not told to remove itself yet")
		}
		return err
	})
	ids, err := cluster.RunningContainers(s.ctx, harness.Namespace, "", "uninstall")
	if err != nil || len(ids) != 1 {
		s.t.Fatalf("there are containers %v: %v", ids, err)
	}
	s.must(cluster.KillContainer(s.ctx, ids[0]))
	if got := <-ended; got.err == nil {
		s.t.Fatalf("helm has not noticed: %s", got.out)
	}
	set, err := cluster.Client.AppsV1().DaemonSets(harness.Namespace).Get(s.ctx, harness.Plugin, metav1.GetOptions{})
	s.must(err)
	if args := set.Spec.Template.Spec.Containers[0].Args; args[0] != "remove" {
		s.t.Fatal(fmt.Errorf("killed at the wrong time: the plugin runs %q", args))
	}
}
