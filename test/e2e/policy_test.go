package e2e

import (
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestThePluginMayWriteOnlySlicesOfItsOwnNodeAndDriver(t *testing.T) {
	pod, err := cluster.PluginPod(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	node := pod.Spec.NodeName
	bound := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	tests := map[string]struct {
		bound        *authenticationv1.BoundObjectReference
		node, driver string
		refused      []string
	}{
		"its own":            {bound: bound, node: node, driver: harness.DriverName},
		"another node's":     {bound: bound, node: "dgx-other", driver: harness.DriverName, refused: []string{node, "dgx-other"}},
		"another driver's":   {bound: bound, node: node, driver: "gpu.example.com", refused: []string{"gpu.example.com", harness.DriverName}},
		"of no node":         {bound: bound, driver: harness.DriverName, refused: []string{node}},
		"with a loose token": {node: node, driver: harness.DriverName, refused: []string{"not bound to a pod"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client := asPlugin(t, test.bound)
			_, err := client.ResourceV1().ResourceSlices().Create(t.Context(), slice(test.node, test.driver), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			wantRefused(t, err, test.refused)
		})
	}
}

func TestThePluginMayNotDeleteAnotherNodesSlices(t *testing.T) {
	pod, err := cluster.PluginPod(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	admin := cluster.Client.ResourceV1().ResourceSlices()
	other, err := admin.Create(t.Context(), slice("dgx-other", harness.DriverName), metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating another node's slice as admin: %v", err)
	}
	defer func() {
		if err := admin.Delete(t.Context(), other.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("deleting slice %s as admin: %v", other.Name, err)
		}
	}()
	client := asPlugin(t, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID})
	err = client.ResourceV1().ResourceSlices().Delete(t.Context(), other.Name, metav1.DeleteOptions{})
	wantRefused(t, err, []string{pod.Spec.NodeName, "dgx-other"})
}

func TestThePluginsRightsEndWithWhatItNeeds(t *testing.T) {
	plugin := "system:serviceaccount:" + harness.Namespace + ":" + harness.Plugin
	for _, right := range []string{
		"list pods", "get secrets", "list nodes", "update nodes", "list resourceclaims",
		"update resourceclaims", "update resourceclaims/status", "create pods", "delete deviceclasses",
	} {
		verb, resource, _ := strings.Cut(right, " ")
		out, err := cluster.Kubectl(t.Context(), "auth", "can-i", verb, resource, "--all-namespaces", "--as", plugin)
		if strings.TrimSpace(out) != "no" {
			t.Errorf("may the plugin %s? %q (%v), want no", right, out, err)
		}
	}
}

// wantRefused fails the test unless err is nil when nothing is said to be
// refused, and otherwise a refusal that names all the words.
func wantRefused(t *testing.T, err error, words []string) {
	t.Helper()
	if len(words) == 0 {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if !apierrors.IsForbidden(err) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the refusal %q does not say %q", err, word)
		}
	}
}

// asPlugin is a client with a token of the plugin's service account.
func asPlugin(t *testing.T, bound *authenticationv1.BoundObjectReference) kubernetes.Interface {
	t.Helper()
	token, err := cluster.Client.CoreV1().ServiceAccounts(harness.Namespace).CreateToken(t.Context(), harness.Plugin, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("asking for a token: %v", err)
	}
	config := rest.AnonymousClientConfig(cluster.Rest)
	config.BearerToken = token.Status.Token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// slice has one device, on the node or on all nodes where that is empty. Its
// pool is nobody's, so that no scheduler uses it.
func slice(node, driver string) *resourceapi.ResourceSlice {
	out := &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver:  driver,
			Pool:    resourceapi.ResourcePool{Name: "e2e", ResourceSliceCount: 1},
			Devices: []resourceapi.Device{{Name: "gpu-0"}},
		},
	}
	if node == "" {
		out.Spec.AllNodes = ptr.To(true)
		return out
	}
	out.Spec.NodeName = &node
	return out
}
