package controller

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// patience is how long a test waits for one thing.
const patience = 2 * time.Minute

// publishedOnly is the taint of nodes without a kubelet.
const publishedOnly = "published-only"

// gpusPerNode is what a published-only node has.
const gpusPerNode = 8

// site is what one test has for itself: a driver with nodes and classes of its
// own, so that it shares nothing but the API server with other tests.
type site struct {
	t      *testing.T
	ctx    context.Context
	name   string // of the driver and of the namespace
	class  string // managed
	plain  string // kube-scheduler's
	nodes  []string
	number int
	// classes are those that were made for it.
	classes []string
}

// newSite makes a namespace, a managed class, one that is not, and nodes of 8
// GPUs that the controller gives away. Where the API server keeps no taints, there
// are no such GPUs, and the test is skipped.
func newSite(t *testing.T, nodes int) *site {
	t.Helper()
	s := newSiteAnywhere(t, nodes)
	if nodes > 0 && !s.keepsTaints() {
		t.Skip("this version of Kubernetes keeps no taints of devices, so that the controller has none to give")
	}
	return s
}

// keepsTaints tells whether the API server has kept the taints of the first node's
// devices.
func (s *site) keepsTaints() bool {
	s.t.Helper()
	slice, err := cluster.Client.ResourceV1().ResourceSlices().Get(s.ctx, s.nodes[0]+"-slice", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return len(slice.Spec.Devices[0].Taints) > 0
}

func newSiteAnywhere(t *testing.T, nodes int) *site {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	namespace, err := cluster.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "site-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, ctx: ctx, name: namespace.Name, class: "managed-gpu." + namespace.Name, plain: "gpu." + namespace.Name}
	t.Cleanup(func() {
		s.clear()
		cancel()
	})
	s.copyRole()
	s.classes = []string{s.class, s.plain}
	for class, labels := range map[string]map[string]string{s.class: {v1alpha1.LabelManagedClass: "true"}, s.plain: nil} {
		_, err := cluster.Client.ResourceV1().DeviceClasses().Create(ctx, &resourceapi.DeviceClass{
			ObjectMeta: metav1.ObjectMeta{Name: class, Labels: labels},
			Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{
				Expression: fmt.Sprintf("device.driver == '%s' && device.attributes['%s'].type == 'gpu'", s.name, s.name),
			}}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range nodes {
		name := fmt.Sprintf("%s-%02d", s.name, i)
		s.nodes = append(s.nodes, name)
		s.node(name)
		s.publish(name, managed, 1)
	}
	s.eventually("all nodes are ready", func() (bool, string) {
		for _, name := range s.nodes {
			node, err := cluster.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			if err != nil || len(node.Spec.Taints) > 1 {
				return false, fmt.Sprint(name, node.Spec.Taints, err)
			}
		}
		return true, ""
	})
	return s
}

// copyRole gives the controller in the site's namespace, which keeps plans of
// gangs there, what it may do in its own.
func (s *site) copyRole() {
	s.t.Helper()
	roles := cluster.Client.RbacV1().Roles
	role, err := roles(harness.Namespace).Get(s.ctx, "eks-hybrid-dra-controller", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := roles(s.name).Create(s.ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: role.Name}, Rules: role.Rules}, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	_, err = cluster.Client.RbacV1().RoleBindings(s.name).Create(s.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: harness.Namespace, Name: role.Name}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

// node makes a node without a kubelet, and keeps it ready.
func (s *site) node(name string) {
	s.t.Helper()
	now := metav1.Now()
	enough := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("100"), corev1.ResourceMemory: resource.MustParse("1Ti"), corev1.ResourcePods: resource.MustParse("250"),
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"site": s.name, corev1.LabelHostname: name, "half": []string{"a", "b"}[len(s.nodes)%2]}},
		// Pods of others would never run here.
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: publishedOnly, Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{
			Capacity: enough, Allocatable: enough,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: now, LastTransitionTime: now, Reason: "Published"}},
		},
	}
	if _, err := cluster.Client.CoreV1().Nodes().Create(s.ctx, node, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	leases := cluster.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease, err := leases.Create(s.ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: ptr.To[int32](40), RenewTime: ptr.To(metav1.NowMicro())},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	go wait.UntilWithContext(s.ctx, func(ctx context.Context) {
		lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
		if renewed, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); err == nil {
			lease = renewed
		}
	}, 8*time.Second)
}

// given is who gives a node's devices.
type given string

const (
	managed   given = "managed"
	settling  given = "settling"
	unmanaged given = "unmanaged"
)

// publish writes a node's slice, as the kubelet plugin would.
func (s *site) publish(node string, by given, generation int64) {
	s.t.Helper()
	if err := s.write(node, by, generation); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) write(node string, by given, generation int64) error {
	slice := &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: node + "-slice"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: s.name, NodeName: &node,
			Pool: resourceapi.ResourcePool{Name: node + "/" + s.name, Generation: generation, ResourceSliceCount: 1},
		},
	}
	for i := range gpusPerNode {
		device := resourceapi.Device{
			Name: fmt.Sprintf("gpu-%d", i),
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"type":                            {StringValue: ptr.To("gpu")},
				"resource.kubernetes.io/numaNode": {IntValue: ptr.To(int64(i / 4))},
			},
		}
		switch by {
		case managed:
			device.Attributes["allocator"] = resourceapi.DeviceAttribute{StringValue: ptr.To("controller")}
			device.Taints = []resourceapi.DeviceTaint{{Key: v1alpha1.TaintManaged, Value: v1alpha1.ManagedByController, Effect: resourceapi.DeviceTaintEffectNoSchedule}}
		case settling:
			device.Taints = []resourceapi.DeviceTaint{{Key: v1alpha1.TaintManaged, Value: v1alpha1.ManagedSettling, Effect: resourceapi.DeviceTaintEffectNoSchedule}}
		}
		slice.Spec.Devices = append(slice.Spec.Devices, device)
	}
	slices := cluster.Client.ResourceV1().ResourceSlices()
	there, err := slices.Get(s.ctx, slice.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = slices.Create(s.ctx, slice, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	there.Spec = slice.Spec
	_, err = slices.Update(s.ctx, there, metav1.UpdateOptions{})
	return err
}

// clear takes everything away, so that the cluster is as before.
func (s *site) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
	check := func(err error) {
		if err != nil && !apierrors.IsNotFound(err) {
			s.t.Error(err)
		}
	}
	check(cluster.Client.CoreV1().Pods(s.name).DeleteCollection(ctx, now, metav1.ListOptions{}))
	check(cluster.Client.ResourceV1().ResourceClaims(s.name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	for _, name := range s.nodes {
		check(cluster.Client.ResourceV1().ResourceSlices().Delete(ctx, name+"-slice", metav1.DeleteOptions{}))
		check(cluster.Client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}))
	}
	for _, class := range s.classes {
		check(cluster.Client.ResourceV1().DeviceClasses().Delete(ctx, class, metav1.DeleteOptions{}))
	}
	check(cluster.Client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{}))
}

// eventually returns when is says so. Is returns what there is instead.
func (s *site) eventually(what string, is func() (bool, string)) {
	s.t.Helper()
	last := ""
	err := wait.PollUntilContextTimeout(s.ctx, 50*time.Millisecond, patience, true, func(context.Context) (ok bool, err error) {
		ok, last = is()
		return ok, nil
	})
	if err != nil {
		s.t.Fatalf("waiting until %s: %v; there is: %s\n%s", what, err, last, s.story())
	}
}

// story is what events say of the site.
func (s *site) story() string {
	events, err := cluster.Client.CoreV1().Events(s.name).List(s.ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, event := range events.Items {
		fmt.Fprintf(&out, "%s %s: %s: %s\n", event.InvolvedObject.Kind, event.InvolvedObject.Name, event.Reason, event.Message)
	}
	return out.String()
}

// event waits for an event about an object.
func (s *site) event(object, reason, text string) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("an event %s of %s says %q", reason, object, text), func() (bool, string) {
		events, err := cluster.Client.CoreV1().Events(s.name).List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		for _, event := range events.Items {
			if event.InvolvedObject.Name == object && event.Reason == reason && strings.Contains(event.Message, text) {
				return true, ""
			}
		}
		return false, ""
	})
}
