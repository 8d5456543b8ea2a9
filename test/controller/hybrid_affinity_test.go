package controller

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/cniaffinity"
)

const (
	onHybrid = v1alpha1.LabelComputeType + " In hybrid"
	onCloud  = v1alpha1.LabelComputeType + " NotIn hybrid"
)

// undo undoes what the site's controller has done.
func (h *hybridSite) undo() hybrid.Undone {
	h.t.Helper()
	config := &v1alpha1.HybridConfig{CNIAffinity: &v1alpha1.CNIAffinityConfig{}}
	undone, err := hybrid.Undo(h.ctx, cluster.Client, h.admin, h.name, config)
	if err != nil {
		h.t.Fatal(err)
	}
	return undone
}

// asBefore compares what users see of a DaemonSet with what it was.
func (h *hybridSite) asBefore(before *appsv1.DaemonSet) {
	h.t.Helper()
	now := h.get(before.Namespace, before.Name)
	if diff := cmp.Diff(before.Spec, now.Spec); diff != "" {
		h.t.Errorf("%s is not as before (-before +now):\n%s", before.Name, diff)
	}
	if note, ok := now.Annotations[cniaffinity.Annotation]; ok {
		h.t.Errorf("%s still has the annotation %s", before.Name, note)
	}
	for _, entry := range now.ManagedFields {
		if entry.Manager == cniaffinity.Manager {
			h.t.Errorf("the controller still owns fields of %s: %s", before.Name, entry.FieldsV1)
		}
	}
}

// The DaemonSets of network plugins as their makers have them, as far as it says
// where pods run, with their names and namespaces.
func TestHybridPresets(t *testing.T) {
	h := newHybridSite(t, 1, 2)
	// Cilium's chart 1.18: agents keep away from each other, on Linux.
	apart := &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
		TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "cilium"}},
	}}}}
	cilium := h.create(h.daemonSet("kube-system", "cilium", apart), 3)
	// Its Envoy has node affinity of its own, and runs beside the agents.
	beside := selects(term("cilium.io/no-schedule NotIn true"))
	beside.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
		TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "cilium"}},
	}}}
	envoy := h.create(h.daemonSet("kube-system", "cilium-envoy", beside), 3)
	// Calico by its manifest says nothing.
	calico := h.create(h.daemonSet("kube-system", "calico-node", nil), 3)
	// The add-on of EKS keeps off hybrid nodes itself.
	vpc := h.create(h.daemonSet("kube-system", "aws-node", selects(term(v1alpha1.LabelComputeType+" NotIn fargate,hybrid,auto"))), 2)
	h.install("hybrid: {cniAffinity: {daemonSets: [{preset: cilium}, {preset: calico}, {preset: aws-node}]}}")
	_, metrics := h.lead(nil)
	for name, want := range map[string]*corev1.Affinity{
		"cilium":       {NodeAffinity: selects(term(onHybrid)).NodeAffinity, PodAntiAffinity: apart.PodAntiAffinity},
		"cilium-envoy": {NodeAffinity: selects(term("cilium.io/no-schedule NotIn true", onHybrid)).NodeAffinity, PodAffinity: beside.PodAffinity},
		"calico-node":  selects(term(onHybrid)),
	} {
		h.runs("kube-system", name, 1)
		if diff := cmp.Diff(want, h.get("kube-system", name).Spec.Template.Spec.Affinity); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		h.metric(metrics, "eks_hybrid_dra_cni_affinity_kept", 1, "name="+name, "nodes=hybrid")
	}
	h.metric(metrics, "eks_hybrid_dra_cni_affinity_kept", 1, "name=aws-node", "nodes=cloud")
	if now := h.get("kube-system", "aws-node"); now.Generation != vpc.Generation || now.Annotations[cniaffinity.Annotation] != "" {
		t.Errorf("aws-node was changed although it is where it belongs: %v", now.ObjectMeta)
	}
	// What is switched off is given back, and the chart lets the controller do it.
	for _, rendered := range []string{h.render("{}", "--is-upgrade", "--dry-run=server"), h.render("hybrid: {registry: {pullSecret: {name: other}}}", "--is-upgrade", "--dry-run=server")} {
		for _, want := range []string{"  - cilium\n", "  - calico-node\n", "- --hybrid-config=", "daemonSets: []"} {
			if !strings.Contains(rendered, want) {
				t.Errorf("the chart without cniAffinity lacks %q:\n%s", want, rendered)
			}
		}
	}
	h.configure(h.rendered(h.render("{}", "--is-upgrade", "--dry-run=server")))
	for _, set := range []*appsv1.DaemonSet{cilium, envoy, calico} {
		h.runs(set.Namespace, set.Name, 3)
		h.gaveUp(set.Namespace, set.Name)
		h.asBefore(set)
	}
	if rendered := h.render("{}", "--is-upgrade", "--dry-run=server"); strings.Contains(rendered, "-hybrid\n") {
		t.Errorf("the chart has rights that nobody needs any more:\n%s", rendered)
	}
}

// apply writes a DaemonSet as its owner does who applies it on the server's side.
func (h *hybridSite) apply(set *appsv1.DaemonSet, force bool) error {
	set = set.DeepCopy()
	set.ObjectMeta = metav1.ObjectMeta{Namespace: set.Namespace, Name: set.Name, Labels: set.Labels}
	set.Status = appsv1.DaemonSetStatus{}
	body, err := json.Marshal(set)
	if err != nil {
		return err
	}
	_, err = cluster.Client.AppsV1().DaemonSets(set.Namespace).Patch(h.ctx, set.Name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "owner", Force: &force})
	return err
}

// keptAt waits until a DaemonSet has the affinity.
func (h *hybridSite) keptAt(name string, want *corev1.Affinity) {
	h.t.Helper()
	h.eventually(name+" is kept", func() (bool, string) {
		diff := cmp.Diff(want, h.get(h.name, name).Spec.Template.Spec.Affinity)
		return diff == "", diff
	})
}

func TestHybridOwnerAppliesAgain(t *testing.T) {
	h := newHybridSite(t, 2, 1)
	own := h.daemonSet(h.name, "cni", selects(term("site Exists", "half Exists"), term("@"+h.nodes[1]), term("@"+h.nodes[2])))
	h.create(own, 3)
	h.install(fmt.Sprintf("hybrid: {cniAffinity: {daemonSets: [{namespace: %s, name: cni, nodes: hybrid}]}}", h.name))
	_, metrics := h.lead(nil)
	kept := selects(term("site Exists", "half Exists", onHybrid), term("@"+h.nodes[1], onHybrid), term("@"+h.nodes[2], onHybrid))
	h.keptAt("cni", kept)
	h.runs(h.name, "cni", 2)
	h.event("cni", "CNIAffinityKept", "hybrid nodes")
	// One who applies it without force is told whose the affinity is.
	if err := h.apply(own, false); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), cniaffinity.Manager) {
		t.Errorf("want a conflict that names %s, got %v", cniaffinity.Manager, err)
	}
	// With force it is undone; once is for free, and then it is told.
	for i := range 5 {
		if err := h.apply(own, true); err != nil {
			t.Fatal(err)
		}
		h.metric(metrics, "eks_hybrid_dra_cni_affinity_reverts_total", float64(i+1), "name=cni")
		if i == 4 { // the longest wait, which cannot be missed
			h.metric(metrics, "eks_hybrid_dra_cni_affinity_problem", 1, "name=cni", "reason=CNIAffinityReverted")
		}
		h.keptAt("cni", kept)
	}
	h.event("cni", "CNIAffinityReverted", "probably by owner")
	h.metric(metrics, "eks_hybrid_dra_cni_affinity_kept", 1, "name=cni")
	// The owner changes a term and keeps ours: that is what he gets back. The status
	// of the DaemonSet may be written at any moment.
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		changed := h.get(h.name, "cni")
		changed.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms = []corev1.NodeSelectorTerm{
			term("half In a", onHybrid), term("@"+h.nodes[2], onHybrid),
		}
		_, err := cluster.Client.AppsV1().DaemonSets(h.name).Update(h.ctx, changed, metav1.UpdateOptions{FieldManager: "owner"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the new original is noted", func() (bool, string) {
		note := h.get(h.name, "cni").Annotations[cniaffinity.Annotation]
		return !strings.Contains(note, h.nodes[1]), note
	})
	h.configure(with("cniAffinity: {daemonSets: []}\n"))
	h.keptAt("cni", selects(term("half In a"), term("@"+h.nodes[2])))
	h.event("cni", "CNIAffinityReturned", "owner's again")
}

func TestHybridUndo(t *testing.T) {
	h := newHybridSite(t, 1, 1)
	var before []*appsv1.DaemonSet
	for name, affinity := range map[string]*corev1.Affinity{
		"nothing": nil, "empty": {}, "preferred": {NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: term("half In a")}}}},
		"two": selects(term("half In a"), term("half In b")),
	} {
		before = append(before, h.create(h.daemonSet(h.name, name, affinity), 2))
	}
	entries := []string{}
	for _, set := range before {
		entries = append(entries, fmt.Sprintf("{namespace: %s, name: %s, nodes: cloud}", h.name, set.Name))
	}
	h.install("hybrid: {cniAffinity: {daemonSets: [" + strings.Join(entries, ",") + "]}}")
	controller, _ := h.lead(nil)
	for _, set := range before {
		h.runs(h.name, set.Name, 1)
	}
	// Cloud nodes need no label.
	h.keptAt("nothing", selects(term(onCloud)))
	controller.stop()
	undone := h.undo()
	for _, set := range before {
		if want := "DaemonSet " + h.name + "/" + set.Name; !strings.Contains(strings.Join(undone.Affinity, ","), want) {
			t.Errorf("undone is %v, want %s", undone.Affinity, want)
		}
		h.asBefore(set)
	}
	if again := h.undo(); strings.Contains(strings.Join(again.Affinity, ","), h.name) {
		t.Errorf("undone again: %v", again)
	}
}

func TestHybridRefusals(t *testing.T) {
	h := newHybridSite(t, 0, 2)
	h.create(h.daemonSet(h.name, "lone", nil), 2)
	owned := h.daemonSet(h.name, "owned", nil)
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "networks.example.com/v1", Kind: "Network", Name: "main", UID: "1", Controller: ptr.To(true)}}
	before := h.create(owned, 2)
	h.install(fmt.Sprintf("hybrid: {cniAffinity: {daemonSets: [{namespace: %[1]s, name: lone, nodes: hybrid}, {namespace: %[1]s, name: owned, nodes: hybrid}, {namespace: %[1]s, name: absent, nodes: hybrid}]}}", h.name))
	_, metrics := h.lead(nil)
	// There is no hybrid node: no node would have the network plugin any more.
	h.event("lone", "CNIAffinityNoNodeMatches", "now it does on 2")
	h.metric(metrics, "eks_hybrid_dra_cni_affinity_kept", 0, "name=lone")
	h.event("owned", "CNIAffinityOwnedByOperator", "Network main (networks.example.com/v1) makes this DaemonSet")
	h.metric(metrics, "eks_hybrid_dra_cni_affinity_problem", 1, "name=owned", "reason=CNIAffinityOwnedByOperator")
	h.asBefore(before)
	// The first hybrid node joins.
	h.label(h.nodes[0], "hybrid")
	h.runs(h.name, "lone", 1)
	h.metric(metrics, "eks_hybrid_dra_cni_affinity_kept", 1, "name=lone")
	// A DaemonSet that was not there is kept as soon as it is.
	h.create(h.daemonSet(h.name, "absent", nil), 1)
	h.metric(metrics, "eks_hybrid_dra_cni_affinity_kept", 1, "name=absent")
}

// Calico's operator makes its DaemonSet of the Installation, again and again.
func TestHybridCalicoOperator(t *testing.T) {
	h := newHybridSite(t, 1, 2)
	c := newCalico(h)
	c.run()
	h.install("hybrid: {cniAffinity: {daemonSets: [{preset: calico}]}}")
	controller, metrics := h.lead(nil)
	h.runs(c.namespace, "calico-node", 1)
	h.metric(metrics, "eks_hybrid_dra_cni_affinity_kept", 1, "namespace=calico-system")
	// What the operator does without being told is kept, too.
	want := selects(term(v1alpha1.LabelComputeType+" NotIn fargate", onHybrid))
	if diff := cmp.Diff(want, h.get(c.namespace, "calico-node").Spec.Template.Spec.Affinity); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := c.field("spec", "cni", "type"); got != "Calico" {
		t.Errorf("the Installation lost spec.cni.type: %v", got)
	}
	// Its owner applies it again.
	c.patch(`{"spec":{"calicoNodeDaemonSet":null}}`)
	h.eventually("it is set again", func() (bool, string) {
		affinity := fmt.Sprint(c.field("spec", "calicoNodeDaemonSet"))
		return strings.Contains(affinity, "hybrid"), affinity
	})
	controller.stop()
	if undone := h.undo(); !strings.Contains(strings.Join(undone.Affinity, ","), "Installation default") {
		t.Errorf("undone is %v, want the Installation", undone)
	}
	if got := c.field("spec", "calicoNodeDaemonSet"); got != nil {
		t.Errorf("left in the Installation: %v", got)
	}
	h.runs(c.namespace, "calico-node", 3)
}

// A controller ends before or after each of its writes, or without the answer to it;
// the next one brings the DaemonSet to the same end.
func TestHybridCrashes(t *testing.T) {
	lost := func(after int) *faults { return &faults{after: after, answer: true, crashed: make(chan struct{})} }
	before := func(write int) *faults { return &faults{after: write - 1, crashed: make(chan struct{})} }
	for name, test := range map[string]struct{ keep, giveBack *faults }{
		"before the first write":             {before(1), before(1)},
		"between giving back and giving up":  {lost(1), before(2)},
		"without the answer to giving back":  {lost(1), lost(1)},
		"without the answer to the last one": {before(1), lost(2)},
	} {
		// One after another: a controller gives back what it does not keep, in the
		// whole cluster.
		t.Run(name, func(t *testing.T) {
			h := newHybridSite(t, 1, 1)
			original := h.create(h.daemonSet(h.name, "cni", selects(term("half In a"), term("half In b"))), 2)
			h.install(fmt.Sprintf("hybrid: {cniAffinity: {daemonSets: [{namespace: %s, name: cni, nodes: hybrid}]}}", h.name))
			h.crash(test.keep)
			second, _ := h.lead(nil)
			h.runs(h.name, "cni", 1)
			second.stop()
			h.configure(with("cniAffinity: {}\n"))
			h.crash(test.giveBack)
			last, _ := h.lead(nil)
			h.runs(h.name, "cni", 2)
			h.gaveUp(h.name, "cni")
			last.stop()
			h.asBefore(original)
		})
	}
}

// crash runs a controller until it has crashed.
func (h *hybridSite) crash(f *faults) {
	h.t.Helper()
	controller, _ := h.lead(f)
	select {
	case <-f.crashed:
	case <-time.After(patience):
		h.t.Fatal("the controller has made fewer writes than it should have crashed at")
	}
	controller.stop()
}

// gaveUp waits until the controller owns no field of a DaemonSet any more, which is
// its last write.
func (h *hybridSite) gaveUp(namespace, name string) {
	h.t.Helper()
	h.eventually("the controller owns nothing of "+name, func() (bool, string) {
		for _, entry := range h.get(namespace, name).ManagedFields {
			if entry.Manager == cniaffinity.Manager {
				return false, entry.String()
			}
		}
		return true, ""
	})
}
