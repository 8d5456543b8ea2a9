package controller

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/pullsecret"
)

// namespace makes one for users, with labels.
func (h *hybridSite) namespace(name string, labels map[string]string) string {
	h.t.Helper()
	name = h.name + "-" + name
	if _, err := cluster.Client.CoreV1().Namespaces().Create(h.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{}); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := cluster.Client.CoreV1().Namespaces().Delete(h.ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			h.t.Error(err)
		}
	})
	return name
}

// login returns what docker login writes.
func login(password string) map[string][]byte {
	return map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{"harbor.example.com":{"username":"robot","password":%q}}}`, password)}
}

func (h *hybridSite) secret(namespace, name string, data map[string][]byte) {
	h.t.Helper()
	_, err := cluster.Client.CoreV1().Secrets(namespace).Create(h.ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeDockerConfigJson, Data: data,
	}, metav1.CreateOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
}

// has waits until a namespace has a Secret with the data; nil: none.
func (h *hybridSite) has(namespace, name string, data map[string][]byte) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%s/%s has %s", namespace, name, data), func() (bool, string) {
		secret, err := cluster.Client.CoreV1().Secrets(namespace).Get(h.ctx, name, metav1.GetOptions{})
		if err != nil {
			return data == nil && apierrors.IsNotFound(err), err.Error()
		}
		same := maps.EqualFunc(secret.Data, data, func(a, b []byte) bool { return string(a) == string(b) })
		return same && secret.Type == corev1.SecretTypeDockerConfigJson, fmt.Sprintf("%s %s", secret.Type, secret.Data)
	})
}

func TestHybridPullSecret(t *testing.T) {
	h := newHybridSite(t, 0, 0)
	a, taken, other := h.namespace("a", nil), h.namespace("taken", nil), h.namespace("other", nil)
	h.secret(taken, "harbor", login("theirs"))
	h.install(fmt.Sprintf("hybrid: {registry: {pullSecret: {name: harbor, namespaces: [%[1]s, %[2]s, %[3]s-later, %[3]s], namespaceSelector: {matchLabels: {team: %[3]s}}, formerNames: [old]}}}", a, taken, h.name))
	_, metrics := h.lead(nil)
	// There is nothing to copy yet.
	h.event("harbor", "PullSecretSourceUnusable", "kubectl create secret docker-registry harbor -n "+h.name)
	h.metric(metrics, "eks_hybrid_dra_pull_secret_problem", 1, "namespace="+a, "reason=PullSecretSourceUnusable")
	h.secret(h.name, "harbor", login("one"))
	h.has(a, "harbor", login("one"))
	h.metric(metrics, "eks_hybrid_dra_pull_secret_copies", 1)
	// Somebody else's Secret stays.
	h.has(taken, "harbor", login("theirs"))
	h.metric(metrics, "eks_hybrid_dra_pull_secret_problem", 1, "namespace="+taken, "reason=PullSecretNameTaken")
	// Namespaces that come later, by name and by label.
	later := h.namespace("later", nil)
	h.has(later, "harbor", login("one"))
	h.team(other, h.name)
	h.has(other, "harbor", login("one"))
	// The password changes; a copy is changed, another is deleted.
	secrets := cluster.Client.CoreV1().Secrets
	if _, err := secrets(h.name).Patch(h.ctx, "harbor", types.MergePatchType, patchOf(login("two")), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	h.has(a, "harbor", login("two"))
	if _, err := secrets(a).Patch(h.ctx, "harbor", types.MergePatchType, patchOf(login("mine")), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := secrets(later).Delete(h.ctx, "harbor", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.has(a, "harbor", login("two"))
	h.has(later, "harbor", login("two"))
	// The source goes: pods can still be started from what there is.
	if err := secrets(h.name).Delete(h.ctx, "harbor", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.metric(metrics, "eks_hybrid_dra_pull_secret_problem", 1, "namespace="+a, "reason=PullSecretSourceUnusable")
	h.has(a, "harbor", login("two"))
	h.secret(h.name, "harbor", login("three"))
	h.has(a, "harbor", login("three"))
	// A namespace is not chosen any more.
	h.team(other, "none")
	h.has(other, "harbor", nil)
	h.configure(with(fmt.Sprintf("pullSecret: {name: harbor, namespaces: [%s]}\n", a)))
	h.has(later, "harbor", nil)
	h.has(a, "harbor", login("three"))
	// It gets another name.
	h.secret(h.name, "old", login("four"))
	h.configure(with(fmt.Sprintf("pullSecret: {name: old, namespaces: [%s], formerNames: [harbor]}\n", a)))
	h.has(a, "old", login("four"))
	h.has(a, "harbor", nil)
	h.has(taken, "harbor", login("theirs"))
	h.has(h.name, "harbor", login("three"))
}

// team gives a namespace the label that the release chooses namespaces by.
func (h *hybridSite) team(namespace, team string) {
	h.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{"team":%q}}}`, team)
	if _, err := cluster.Client.CoreV1().Namespaces().Patch(h.ctx, namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

func patchOf(data map[string][]byte) []byte {
	return fmt.Appendf(nil, `{"stringData":{%q:%q}}`, corev1.DockerConfigJsonKey, data[corev1.DockerConfigJsonKey])
}

// The controller's role and the policies leave it no more than it needs.
func TestHybridRights(t *testing.T) {
	h := newHybridSite(t, 0, 1)
	a := h.namespace("a", nil)
	h.secret(h.name, "harbor", login("one"))
	h.create(h.daemonSet(h.name, "cni", nil), 1)
	h.install(fmt.Sprintf("hybrid: {cniAffinity: {daemonSets: [{namespace: %[1]s, name: cni, nodes: cloud}]}, registry: {pullSecret: {name: harbor, namespaces: [%[2]s]}}}", h.name, a))
	controller, _ := h.lead(nil)
	h.has(a, "harbor", login("one"))
	controller.stop()
	client, err := kubernetes.NewForConfig(h.as())
	if err != nil {
		t.Fatal(err)
	}
	secret := func(name string, kind corev1.SecretType, labels map[string]string, data map[string][]byte) *corev1.Secret {
		account := map[string]string{corev1.ServiceAccountNameKey: "default"}
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: account}, Type: kind, Data: data}
	}
	copied := map[string]string{pullsecret.Label: "true"}
	patch := func(name, body string) func() error {
		return func() error {
			_, err := client.AppsV1().DaemonSets(h.name).Patch(h.ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
	}
	create := func(s *corev1.Secret) func() error {
		return func() error {
			_, err := client.CoreV1().Secrets(h.name+"-a").Create(h.ctx, s, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
	}
	for name, test := range map[string]struct {
		try func() error
		say string
	}{
		"read all Secrets": {func() error {
			_, err := client.CoreV1().Secrets("").List(h.ctx, metav1.ListOptions{})
			return err
		}, "cannot list resource"},
		"another Secret":               {create(secret("root", corev1.SecretTypeDockerConfigJson, copied, login("x"))), "copies of the"},
		"a token of a service account": {create(secret("harbor", corev1.SecretTypeServiceAccountToken, copied, nil)), "copies of the"},
		"no copy":                      {create(secret("harbor", corev1.SecretTypeDockerConfigJson, nil, login("x"))), "copies of the"},
		"the source": {func() error {
			return client.CoreV1().Secrets(h.name).Delete(h.ctx, "harbor", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
		}, "copies of the"},
		"another DaemonSet": {patch("other", `{}`), "cannot patch resource"},
		"an image":          {patch("cni", `{"spec":{"template":{"spec":{"containers":[{"name":"agent","image":"evil"}]}}}}`), "but its node affinity"},
		"a volume":          {patch("cni", `{"spec":{"template":{"spec":{"volumes":[{"name":"root","hostPath":{"path":"/"}}]}}}}`), "but its node affinity"},
		"the host's PIDs":   {patch("cni", `{"spec":{"template":{"spec":{"hostPID":true}}}}`), "but its node affinity"},
	} {
		// A new policy counts after a moment.
		h.eventually(name+" is refused", func() (bool, string) {
			err := test.try()
			return apierrors.IsForbidden(err) && strings.Contains(err.Error(), test.say), fmt.Sprint(err)
		})
	}
}

func TestHybridUndoSecrets(t *testing.T) {
	h := newHybridSite(t, 0, 0)
	a, b := h.namespace("a", nil), h.namespace("b", nil)
	h.secret(h.name, "harbor", login("one"))
	h.secret(b, "harbor", login("theirs"))
	h.install(fmt.Sprintf("hybrid: {registry: {pullSecret: {name: harbor, namespaces: [%s, %s]}}}", a, b))
	controller, _ := h.lead(nil)
	h.has(a, "harbor", login("one"))
	controller.stop()
	config := &v1alpha1.HybridConfig{PullSecret: &v1alpha1.PullSecretConfig{Name: "harbor"}}
	for _, want := range []string{"[" + a + "/harbor]", "[]"} {
		undone, err := hybrid.Undo(h.ctx, cluster.Client, h.admin, h.name, config)
		if err != nil || fmt.Sprint(undone.Secrets) != want {
			t.Errorf("undone is %v, want %s; %v", undone, want, err)
		}
	}
	h.has(a, "harbor", nil)
	h.has(b, "harbor", login("theirs"))
	h.has(h.name, "harbor", login("one"))
}

// A configuration that is wrong changes nothing, and says what is wrong.
func TestHybridConfigIsFollowed(t *testing.T) {
	h := newHybridSite(t, 1, 1)
	h.create(h.daemonSet(h.name, "cni", nil), 2)
	h.install(fmt.Sprintf("hybrid: {cniAffinity: {daemonSets: [{namespace: %s, name: cni, nodes: hybrid}]}}", h.name))
	good := fmt.Sprintf("cniAffinity: {daemonSets: [{namespace: %s, name: cni, nodes: ", h.name)
	h.configure(with(good + "on-premises}]}\n"))
	_, metrics := h.lead(nil)
	h.event("controller", hybrid.EventConfig, `cniAffinity.daemonSets[0].nodes: Unsupported value: "on-premises"`)
	h.metric(metrics, "eks_hybrid_dra_hybrid_config_valid", 0)
	h.runs(h.name, "cni", 2)
	h.configure(with(good + "hybrid}]}\n"))
	h.runs(h.name, "cni", 1)
	h.metric(metrics, "eks_hybrid_dra_hybrid_config_valid", 1)
	h.configure(with("cniAffinities: {}\n"))
	h.event("controller", hybrid.EventConfig, `unknown field "cniAffinities"`)
	h.metric(metrics, "eks_hybrid_dra_hybrid_config_valid", 0)
	h.metric(metrics, "eks_hybrid_dra_cni_affinity_kept", 1, "name=cni")
	h.configure(with(good + "any}]}\n"))
	h.runs(h.name, "cni", 2)
}
