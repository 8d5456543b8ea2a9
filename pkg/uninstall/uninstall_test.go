package uninstall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/uninstall/workload"
)

const (
	driver    = "eks-hybrid-dra"
	namespace = "gpu"
	patience  = 20 * time.Second
)

// site is a cluster with the driver, whose nodes do what pods are told.
type site struct {
	t      *testing.T
	client *fake.Clientset
	nodes  []string

	mu sync.Mutex
	// broken are nodes whose pod never gets ready, with the reason.
	broken map[string]string
	// onRemoval is called when the plugin is told to remove itself.
	onRemoval func()
}

func newSite(t *testing.T, nodes ...string) *site {
	t.Helper()
	s := &site{t: t, client: fake.NewClientset(), nodes: nodes, broken: map[string]string{}}
	for _, node := range nodes {
		s.node(node, true)
		slice := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node + "-slice"}, Spec: resourceapi.ResourceSliceSpec{
			Driver: driver, NodeName: &node, Pool: resourceapi.ResourcePool{Name: node + "/" + driver},
		}}
		s.must(s.client.Tracker().Add(slice))
	}
	for name, args := range map[string][]string{"plugin": {"--driver-name=" + driver}, "trust": {"--certs-dir=/etc/certs", "--interval=1m"}} {
		labels := map[string]string{"app": name}
		s.must(s.client.Tracker().Add(&appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Generation: 1},
			Status:     appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: int32(len(nodes))},
			Spec: appsv1.DaemonSetSpec{
				Selector: &metav1.LabelSelector{MatchLabels: labels},
				UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{
					MaxSurge: ptr.To(intstr.FromInt32(1)), MaxUnavailable: ptr.To(intstr.FromInt32(0)),
				}},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: labels},
					Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "other"}, {Name: name, Args: args}}},
				},
			},
		}))
	}
	labels := map[string]string{"app": "controller"}
	s.must(s.client.Tracker().Add(&appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "controller"},
		Spec:       appsv1.DeploymentSpec{Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}))
	s.must(s.client.Tracker().Add(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "lease"}}))
	for name, labels := range map[string]map[string]string{"plan": {"plan": "true"}, "somebody-elses": nil} {
		s.must(s.client.Tracker().Add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}}))
	}
	s.play()
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) node(name string, ready bool) {
	s.t.Helper()
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	s.must(s.client.Tracker().Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}},
	}}))
}

// claim has a device, of this driver or of another one.
func (s *site) claim(name, ofDriver string, pods ...string) {
	s.t.Helper()
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name}}
	claim.Status.Allocation = &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{
		{Driver: ofDriver, Pool: "dgx-0/" + driver, Device: "gpu-3"},
	}}}
	for _, pod := range pods {
		claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod})
	}
	s.must(s.client.Tracker().Add(claim))
}

// play does, until the test ends, what the DaemonSet controller and the pods do.
func (s *site) play() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, name := range []string{"plugin", "trust"} {
				s.playSet(ctx, name)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	}()
	s.t.Cleanup(func() {
		cancel()
		<-done
	})
}

func (s *site) playSet(ctx context.Context, name string) {
	set, err := s.client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return
	}
	args := set.Spec.Template.Spec.Containers[1].Args
	removes := len(args) > 0 && args[0] == "remove"
	s.mu.Lock()
	defer s.mu.Unlock()
	if removes && name == "plugin" && s.onRemoval != nil {
		s.onRemoval()
		s.onRemoval = nil
	}
	for _, node := range s.nodes {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-" + node, Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{NodeName: node, Containers: set.Spec.Template.Spec.Containers},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		}
		why, broken := s.broken[node]
		if broken && removes {
			pod.Status.Conditions[0].Status = corev1.ConditionFalse
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Message: why}}}}
		}
		if _, err := s.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			_, err = s.client.CoreV1().Pods(namespace).Update(ctx, pod, metav1.UpdateOptions{})
			if err != nil {
				continue
			}
		}
		if removes && !broken && name == "plugin" {
			_ = s.client.ResourceV1().ResourceSlices().Delete(ctx, node+"-slice", metav1.DeleteOptions{}) // it may be gone
		}
	}
}

func (s *site) options() Options {
	return Options{
		Client: s.client, DriverName: driver, Namespace: namespace,
		Plugin: "plugin", PluginContainer: "plugin", Controller: "controller", Lease: "lease", PlanLabel: "plan",
		RegistryTrust: "trust", RegistryTrustContainer: "trust", Poll: time.Millisecond,
	}
}

// run uninstalls within a time that is generous, or short.
func (s *site) run(o Options, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(s.t.Context(), timeout, errors.New("time is up"))
	defer cancel()
	return Run(ctx, o)
}

// args are what a DaemonSet's pods run, and how many pods the controller has.
func (s *site) args(name string) (args []string, surge string, replicas int32) {
	s.t.Helper()
	set, err := s.client.AppsV1().DaemonSets(namespace).Get(s.t.Context(), name, metav1.GetOptions{})
	s.must(err)
	deployment, err := s.client.AppsV1().Deployments(namespace).Get(s.t.Context(), "controller", metav1.GetOptions{})
	s.must(err)
	return set.Spec.Template.Spec.Containers[1].Args, set.Spec.UpdateStrategy.RollingUpdate.MaxSurge.String(), *deployment.Spec.Replicas
}

// wantAsBefore fails the test unless all serves as it did.
func (s *site) wantAsBefore() {
	s.t.Helper()
	args, surge, replicas := s.args("plugin")
	if !slices.Equal(args, []string{"--driver-name=" + driver}) || surge != "1" || replicas != 2 {
		s.t.Errorf("the plugin runs %q with surge %s, the controller has %d replicas", args, surge, replicas)
	}
	if args, _, _ := s.args("trust"); args[0] != "--certs-dir=/etc/certs" {
		s.t.Errorf("registry-trust runs %q", args)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("uninstalled")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error does not say %q: %v", part, err)
		}
	}
}

func TestUninstall(t *testing.T) {
	s := newSite(t, "dgx-0", "dgx-1")
	s.claim("of-another-driver", "other.example.com", "pod")
	var order []string
	o := s.options()
	o.Undo = []Step{{Name: "undo", Do: func(context.Context) error {
		_, _, replicas := s.args("plugin")
		order = append(order, fmt.Sprintf("undo with %d controllers", replicas))
		return nil
	}}}
	for range 2 { // it may be repeated
		s.must(s.run(o, patience))
	}
	if diff := cmp.Diff([]string{"undo with 0 controllers", "undo with 0 controllers"}, order); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	args, surge, _ := s.args("plugin")
	if diff := cmp.Diff([]string{"remove", "--stay", "--driver-name=" + driver}, args); diff != "" || surge != "0" {
		t.Errorf("the plugin runs (-want +got), with surge %s:\n%s", surge, diff)
	}
	if args, _, _ := s.args("trust"); !slices.Equal(args, []string{"remove", "--stay", "--certs-dir=/etc/certs"}) {
		t.Errorf("registry-trust runs %q", args)
	}
	slicesLeft, err := s.client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
	s.must(err)
	leases, err := s.client.CoordinationV1().Leases("").List(t.Context(), metav1.ListOptions{})
	s.must(err)
	maps, err := s.client.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{})
	s.must(err)
	if len(slicesLeft.Items) > 0 || len(leases.Items) > 0 || len(maps.Items) != 1 || maps.Items[0].Name != "somebody-elses" {
		t.Errorf("left: %v, %v, %v", slicesLeft.Items, leases.Items, maps.Items)
	}
}

func TestNothingIsInstalled(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"plugin", "trust"} {
		s.must(s.client.AppsV1().DaemonSets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
	s.must(s.client.AppsV1().Deployments(namespace).Delete(t.Context(), "controller", metav1.DeleteOptions{}))
	s.must(s.run(s.options(), patience))
}

func TestClaimsThatAreInUseAreListed(t *testing.T) {
	s := newSite(t, "dgx-0")
	s.claim("job", driver, "job-1", "job-2")
	s.claim("spare", driver)
	err := s.run(s.options(), patience)
	wantError(t, err, "in use by 2 claims or pods", "team/job: gpu-3 on dgx-0, used by pod job-1, pod job-2", "team/spare: gpu-3 on dgx-0, allocated, not used by a pod: delete the claim, or wait")
	s.wantAsBefore()
	for n := range 30 {
		s.claim(fmt.Sprintf("more-%02d", n), driver, "pod")
	}
	err = s.run(s.options(), patience)
	wantError(t, err, "in use by 32 claims or pods", "team/more-18", "and 12 more")
	if n := strings.Count(err.Error(), "gpu-3"); n != namedUsers {
		t.Errorf("%d claims are named, want %d", n, namedUsers)
	}
}

// The scheduler has given a device away after the first look.
func TestAClaimThatGetsADeviceMeanwhileHasAllPutBack(t *testing.T) {
	s := newSite(t, "dgx-0", "dgx-1")
	s.mu.Lock()
	s.broken["dgx-1"] = "a claim is still prepared"
	s.onRemoval = func() { s.claim("late", driver, "late-pod") }
	s.mu.Unlock()
	wantError(t, s.run(s.options(), patience), "1 claim or pod", "team/late")
	s.wantAsBefore()
}

func TestANodeThatIsNotDoneInTimeIsNamed(t *testing.T) {
	s := newSite(t, "dgx-0", "dgx-1")
	s.mu.Lock()
	s.broken["dgx-1"] = "Starting\nVF 3 is bound to vfio-pci\n"
	s.mu.Unlock()
	// On a slow machine it takes a while until dgx-0 is done.
	var err error
	for limit := 200 * time.Millisecond; limit < patience; limit *= 2 {
		if err = s.run(s.options(), limit); err == nil || !strings.Contains(err.Error(), "not replaced yet") {
			break
		}
	}
	wantError(t, err, "dgx-1: pod plugin-dgx-1 failed: VF 3 is bound to vfio-pci", "time is up")
	if strings.Contains(err.Error(), "dgx-0") {
		t.Errorf("a node that is done is named: %v", err)
	}
	s.wantAsBefore()
	s.mu.Lock()
	delete(s.broken, "dgx-1")
	s.mu.Unlock()
	s.must(s.run(s.options(), patience))
}

func TestNodesThatAreNotReady(t *testing.T) {
	s := newSite(t, "dgx-0", "dgx-1")
	s.mu.Lock()
	s.broken["dgx-1"] = "unreachable"
	s.mu.Unlock()
	s.must(s.client.CoreV1().Nodes().Delete(t.Context(), "dgx-1", metav1.DeleteOptions{}))
	s.node("dgx-1", false)
	s.node("cloud-0", false) // the driver has no pod there
	wantPods(t, s)
	err := s.run(s.options(), patience)
	wantError(t, err, "not ready", "dgx-1", "uninstall.skipUnreachableNodes")
	if strings.Contains(err.Error(), "cloud-0") {
		t.Errorf("a node that does not count is named: %v", err)
	}
	s.wantAsBefore()
	o := s.options()
	o.SkipUnreachableNodes = true
	s.must(s.run(o, patience))
	list, err := s.client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
	s.must(err)
	if len(list.Items) > 0 {
		t.Errorf("slices are left: %v", list.Items)
	}
}

// wantPods waits until every node has its pods.
func wantPods(t *testing.T, s *site) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		pods, err := s.client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		s.must(err)
		if len(pods.Items) == 2*len(s.nodes) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("no pods")
		}
	}
}

func TestAStepThatFailsHasAllPutBack(t *testing.T) {
	s := newSite(t, "dgx-0")
	o := s.options()
	o.Undo = []Step{{Name: "restore the affinity", Do: func(context.Context) error { return errors.New("the operator is away") }}}
	wantError(t, s.run(o, patience), "restore the affinity: the operator is away")
	s.wantAsBefore()
	set, err := s.client.AppsV1().DaemonSets(namespace).Get(t.Context(), "plugin", metav1.GetOptions{})
	s.must(err)
	if _, there := set.Annotations[workload.Before]; there {
		t.Error("the annotation is left")
	}
}
