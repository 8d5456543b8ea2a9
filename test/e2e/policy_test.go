package e2e

import (
	"context"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestThePluginMayCreateOnlySlicesOfItsOwnNodePoolAndDriver(t *testing.T) {
	const node, pool = "dgx-1", "dgx-1/" + harness.DriverName
	bound := podOn(t, node)
	tests := map[string]struct {
		bound              *authenticationv1.BoundObjectReference
		node, pool, driver string
		refused            []string
	}{
		"its own":              {bound: bound, node: node, pool: pool, driver: harness.DriverName},
		"another node's":       {bound: bound, node: "dgx-2", pool: pool, driver: harness.DriverName, refused: []string{node, "dgx-2"}},
		"in another's pool":    {bound: bound, node: node, pool: "dgx-2/" + harness.DriverName, driver: harness.DriverName, refused: []string{pool, "dgx-2/"}},
		"another driver's":     {bound: bound, node: node, pool: pool, driver: "gpu.example.com", refused: []string{"gpu.example.com", harness.DriverName}},
		"of no node":           {bound: bound, pool: pool, driver: harness.DriverName, refused: []string{node}},
		"with a loose token":   {node: node, pool: pool, driver: harness.DriverName, refused: []string{"not bound to a pod"}},
		"in a pool of no node": {bound: bound, node: node, pool: harness.DriverName, driver: harness.DriverName, refused: []string{pool}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client := asPlugin(t, test.bound)
			_, err := client.ResourceV1().ResourceSlices().Create(t.Context(), slice(test.node, test.pool, test.driver), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			wantRefused(t, err, test.refused)
		})
	}
}

func TestThePluginMayUpdateAndDeleteOnlyItsOwnNodesSlices(t *testing.T) {
	const node, pool = "dgx-1", "dgx-1/" + harness.DriverName
	admin := cluster.Client.ResourceV1().ResourceSlices()
	plugin := asPlugin(t, podOn(t, node)).ResourceV1().ResourceSlices()
	tests := map[string]struct {
		node, pool     string
		update, delete []string // what the refusal says
	}{
		"its own":        {node: node, pool: pool},
		"another node's": {node: "dgx-2", pool: "dgx-2/" + harness.DriverName, update: []string{node, "dgx-2"}, delete: []string{node, "dgx-2"}},
		// One that should not be there may be removed.
		"in a wrong pool": {node: node, pool: "dgx-2/" + harness.DriverName, update: []string{pool, "dgx-2/"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			made, err := admin.Create(t.Context(), slice(test.node, test.pool, harness.DriverName), metav1.CreateOptions{})
			if err != nil {
				t.Fatalf("creating a slice as admin: %v", err)
			}
			t.Cleanup(func() {
				err := admin.Delete(context.WithoutCancel(t.Context()), made.Name, metav1.DeleteOptions{})
				if err != nil && !apierrors.IsNotFound(err) {
					t.Errorf("deleting slice %s as admin: %v", made.Name, err)
				}
			})
			changed := made.DeepCopy()
			changed.Spec.Devices[0].Name = "gpu-1"
			_, err = plugin.Update(t.Context(), changed, metav1.UpdateOptions{})
			wantRefused(t, err, test.update)
			wantRefused(t, plugin.Delete(t.Context(), made.Name, metav1.DeleteOptions{}), test.delete)
		})
	}
}

func TestThePluginsRightsEndWithWhatItNeeds(t *testing.T) {
	plugin := "system:serviceaccount:" + harness.Namespace + ":" + harness.Plugin
	for _, right := range []string{
		"list pods", "get secrets", "list nodes", "update nodes", "list resourceclaims",
		"update resourceclaims", "patch resourceclaims", "create pods", "delete deviceclasses",
		"get devicetaintrules", "create devicetaintrules", "update devicetaintrules", "patch devicetaintrules", "delete devicetaintrules",
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

// podOn makes a pod of the plugin's service account on a node that does not
// exist. What its token may write is in nobody's way: the plugin at work removes
// what it does not know from its own node alone.
func podOn(t *testing.T, node string) *authenticationv1.BoundObjectReference {
	t.Helper()
	pods := cluster.Client.CoreV1().Pods(harness.Namespace)
	pod, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"},
		Spec: corev1.PodSpec{
			NodeName:           node,
			ServiceAccountName: harness.Plugin,
			Containers:         []corev1.Container{{Name: "never-runs", Image: "localhost/eks-hybrid-dra:dev"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating a pod on %s: %v", node, err)
	}
	t.Cleanup(func() {
		err := pods.Delete(context.WithoutCancel(t.Context()), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		if err != nil && !apierrors.IsNotFound(err) { // the control plane removes pods of missing nodes, too
			t.Errorf("deleting pod %s: %v", pod.Name, err)
		}
	})
	return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
}

// slice has one device, on the node or on all nodes where that is empty.
func slice(node, pool, driver string) *resourceapi.ResourceSlice {
	out := &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver:  driver,
			Pool:    resourceapi.ResourcePool{Name: pool, ResourceSliceCount: 1},
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
