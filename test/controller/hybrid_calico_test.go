package controller

import (
	"context"
	"encoding/json"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// calico stands in for Calico's operator: it makes calico-node of the Installation,
// whose affinity replaces the operator's own.
type calico struct {
	*hybridSite
	namespace string
}

func crds() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

func installations() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "operator.tigera.io", Version: "v1", Resource: "installations"}
}

// newCalico installs an operator for the time of a test.
func newCalico(h *hybridSite) *calico {
	h.t.Helper()
	c := &calico{h, "calico-system"}
	check := func(err error) {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			h.t.Helper()
			h.t.Fatal(err)
		}
	}
	_, err := cluster.Client.CoreV1().Namespaces().Create(h.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}, metav1.CreateOptions{})
	check(err)
	// As much of the real one as the controller could break.
	object := func(properties map[string]any) map[string]any {
		return map[string]any{"type": "object", "properties": properties}
	}
	nested := func(keys ...string) map[string]any {
		inner := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
		for i := len(keys) - 1; i >= 0; i-- {
			inner = object(map[string]any{keys[i]: inner})
		}
		return inner
	}
	spec := object(map[string]any{
		"cni":                 object(map[string]any{"type": map[string]any{"type": "string"}}),
		"calicoNodeDaemonSet": nested("spec", "template", "spec", "affinity"),
	})
	crd := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "installations.operator.tigera.io"},
		"spec": map[string]any{
			"group": "operator.tigera.io", "scope": "Cluster",
			"names": map[string]any{"kind": "Installation", "listKind": "InstallationList", "plural": "installations", "singular": "installation"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": object(map[string]any{"spec": spec})},
			}},
		},
	}}
	_, err = h.admin.Resource(crds()).Create(h.ctx, crd, metav1.CreateOptions{})
	check(err)
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.admin.Resource(crds()).Delete(ctx, crd.GetName(), metav1.DeleteOptions{}); err != nil {
			h.t.Error(err)
		}
	})
	h.eventually("the Installation is there", func() (bool, string) {
		_, err := h.admin.Resource(installations()).Create(h.ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "operator.tigera.io/v1", "kind": "Installation", "metadata": map[string]any{"name": "default"},
			"spec": map[string]any{"cni": map[string]any{"type": "Calico"}},
		}}, metav1.CreateOptions{})
		if err != nil {
			return apierrors.IsAlreadyExists(err), err.Error()
		}
		return true, ""
	})
	return c
}

// run is the operator, until the test ends.
func (c *calico) run() {
	c.t.Helper()
	set := c.daemonSet(c.namespace, "calico-node", c.wanted())
	installation, err := c.admin.Resource(installations()).Get(c.ctx, "default", metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	set.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "operator.tigera.io/v1", Kind: "Installation", Name: "default", UID: installation.GetUID(), Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
	}}
	c.create(set, 3)
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan struct{})
	c.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		wait.UntilWithContext(ctx, func(ctx context.Context) {
			sets := cluster.Client.AppsV1().DaemonSets(c.namespace)
			now, err := sets.Get(ctx, set.Name, metav1.GetOptions{})
			if err != nil {
				return
			}
			c.write(ctx, now)
		}, 100*time.Millisecond)
	}()
}

func (c *calico) write(ctx context.Context, now *appsv1.DaemonSet) {
	wanted := c.wanted()
	a, err := json.Marshal(wanted)
	if err != nil {
		return
	}
	if b, err := json.Marshal(now.Spec.Template.Spec.Affinity); err == nil && string(a) == string(b) {
		return
	}
	now.Spec.Template.Spec.Affinity = wanted
	// A conflict is tried again the next time.
	_, _ = cluster.Client.AppsV1().DaemonSets(c.namespace).Update(ctx, now, metav1.UpdateOptions{FieldManager: "operator"})
}

// wanted is the affinity that the Installation says, or what the operator does on
// EKS if it says nothing.
func (c *calico) wanted() *corev1.Affinity {
	if said := c.field("spec", "calicoNodeDaemonSet", "spec", "template", "spec", "affinity"); said != nil {
		affinity := &corev1.Affinity{}
		if raw, err := json.Marshal(said); err == nil && json.Unmarshal(raw, affinity) == nil {
			return affinity
		}
	}
	return selects(term(v1alpha1.LabelComputeType + " NotIn fargate"))
}

// field returns a field of the Installation, nil if it is not there.
func (c *calico) field(path ...string) any {
	installation, err := c.admin.Resource(installations()).Get(context.WithoutCancel(c.ctx), "default", metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	value, _, err := unstructured.NestedFieldNoCopy(installation.Object, path...)
	if err != nil {
		return err.Error()
	}
	return value
}

// patch changes the Installation as its owner.
func (c *calico) patch(body string) {
	c.t.Helper()
	if _, err := c.admin.Resource(installations()).Patch(c.ctx, "default", types.MergePatchType, []byte(body), metav1.PatchOptions{FieldManager: "owner"}); err != nil {
		c.t.Fatal(err)
	}
}
