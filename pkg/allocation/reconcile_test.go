package allocation

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fit"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// noMetrics are for tests of what is done, not of how it is counted.
type noMetrics struct{}

func (noMetrics) Claim(_, _ *resourceapi.ResourceClaim)             {}
func (noMetrics) ClassGone(string)                                  {}
func (noMetrics) Failed(*resourceapi.ResourceClaim, measure.Reason) {}
func (noMetrics) WriteFailed(*resourceapi.ResourceClaim, error)     {}

// stand is a controller that leads, without a manager: a test takes its steps.
type stand struct {
	*Controller
	t      *testing.T
	queue  workqueue.TypedRateLimitingInterface[Request]
	events *record.FakeRecorder
}

func newStand(t *testing.T, machines ...fleettest.Machine) *stand {
	t.Helper()
	version := 1000
	client := fake.NewClientset()
	client.PrependReactor("update", "resourceclaims", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if update, ok := action.(clienttesting.UpdateAction); ok {
			if object, err := meta.Accessor(update.GetObject()); err == nil {
				version++
				object.SetResourceVersion(strconv.Itoa(version))
			}
		}
		return false, nil, nil
	})
	s := &stand{
		t: t, events: record.NewFakeRecorder(1000),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[Request]()),
	}
	t.Cleanup(s.queue.ShutDown)
	known, times := fleet.New(fleettest.Driver), clock.RealClock{}
	s.Controller = &Controller{
		Options: Options{
			DriverName: fleettest.Driver, Namespace: "own", Client: client, Fleet: known, Consumers: consumers.NewIndex(),
			Metrics: noMetrics{}, Events: s.events, UnusedAfter: time.Hour, GangTimeout: time.Minute, Clock: times,
		},
		planner: fit.New(known), classes: classes.NewReader(fleettest.Driver), claims: newClaims(),
		writer: claimwrite.New(client, times), plans: gangplan.NewStore(client, "own"), memory: newMemory(times),
		unfinished: newPlansUnderWay(),
		races:      workqueue.NewTypedItemExponentialFailureRateLimiter[Request](firstRetry, longestRetry),
		hopeless:   workqueue.NewTypedItemExponentialFailureRateLimiter[Request](firstHopeless, longestHopeless),
	}
	s.waiting = newWaiting(times, s.enqueue)
	s.feed = &feed{Controller: s.Controller}
	s.Controller.queue.Store(&queue{s.queue})
	for _, class := range fleettest.Classes() {
		known.SetClass(class)
	}
	for _, machine := range machines {
		known.SetNode(machine.Object(nil))
		for _, slice := range machine.Slices() {
			known.SetSlice(slice)
		}
	}
	return s
}

// make puts a claim into the API, and tells the controller.
func (s *stand) make(claim *resourceapi.ResourceClaim) {
	s.t.Helper()
	made, err := s.Client.ResourceV1().ResourceClaims(claim.Namespace).Create(s.t.Context(), claim, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.feed.observe(made, fromWatch)
}

// run looks at all that the controller wants to look at, until there is nothing
// more.
func (s *stand) run() {
	s.t.Helper()
	for n := 0; s.queue.Len() > 0; n++ {
		if n > 200 {
			s.t.Fatal("the controller comes to no end")
		}
		r, _ := s.queue.Get()
		if _, err := s.Reconcile(s.t.Context(), r); err != nil {
			s.t.Fatal(err)
		}
		s.queue.Done(r)
	}
}

// allocated returns the names of the claims that have devices.
func (s *stand) allocated() map[string]bool {
	names := map[string]bool{}
	for _, claim := range s.claims.all() {
		if claim.Status.Allocation != nil {
			names[claim.Name] = true
		}
	}
	return names
}

func gpus(name string, count int64, labels map[string]string) *resourceapi.ResourceClaim {
	claim := fleettest.Claim(name, fleettest.Request("r", fleettest.ClassGPU, count))
	claim.Labels, claim.CreationTimestamp = labels, metav1.NewTime(time.Now().Add(-time.Hour))
	return claim
}

func inGang(size string) map[string]string {
	return map[string]string{v1alpha1.LabelGang: "train", v1alpha1.LabelGangSize: size}
}

// A gang of which the API server takes one claim and not the other holds nothing,
// and is not tried all the time.
func TestAGangThatTheAPIServerRefuses(t *testing.T) {
	resource, kind := schema.GroupResource{Resource: "resourceclaims"}, schema.GroupKind{Kind: "ResourceClaim"}
	for name, err := range map[string]error{
		"by a policy":  apierrors.NewForbidden(resource, "train-1", nil),
		"as not valid": apierrors.NewInvalid(kind, "train-1", nil),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, fleettest.DGX("dgx-0"))
			s.refuse("train-1", err)
			for _, claim := range []string{"train-0", "train-1"} {
				s.make(gpus(claim, 4, inGang("2")))
			}
			s.run()
			if got := s.allocated(); len(got) > 0 {
				t.Errorf("holds: %v", got)
			}
			if plans, _, err := s.plans.List(t.Context()); err != nil || len(plans) > 0 {
				t.Errorf("plans: %v, %v", plans, err)
			}
			told := ""
			for len(s.events.Events) > 0 {
				told += <-s.events.Events + "\n"
			}
			if !strings.Contains(told, "GangTimedOut") || strings.Count(told, "WriteRefused") != 1 || !strings.Contains(told, err.Error()) {
				t.Errorf("users are told: %s", told)
			}
		})
	}
}

// What keeps a gang from being stored is told before its time is over.
func TestAPlanThatTheAPIServerRefuses(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	client, ok := s.Client.(*fake.Clientset)
	if !ok {
		t.Fatalf("the client is a %T", s.Client)
	}
	refused := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "plan", errors.New("a policy says no"))
	client.PrependReactor("create", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, refused })
	for _, claim := range []string{"train-0", "train-1"} {
		s.make(gpus(claim, 4, inGang("2")))
	}
	gang := Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: "train"}, Gang: true}
	for range 2 {
		if _, err := s.Reconcile(t.Context(), gang); err == nil {
			t.Error("no error")
		}
	}
	if told := s.told(); strings.Count(told, "WriteRefused") != 2 || !strings.Contains(told, "a policy says no") {
		t.Errorf("events: %s", told)
	}
	if n := s.Fleet.View().Node("dgx-0").Pools[0].Free.Len(); n == 0 || len(s.allocated()) > 0 {
		t.Errorf("holds %v, %d devices are free", s.allocated(), n)
	}
}

// A claim may be given another label when its gang has its devices already.
func TestAGangThatAClaimLeavesGivesAllBack(t *testing.T) {
	for name, labels := range map[string]map[string]string{
		"for no gang": nil,
		"for another": {v1alpha1.LabelGang: "other", v1alpha1.LabelGangSize: "2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, fleettest.DGX("dgx-0"))
			for _, claim := range []string{"train-0", "train-1"} {
				s.make(gpus(claim, 4, inGang("2")))
			}
			s.run()
			if got := s.allocated(); len(got) != 2 {
				t.Fatalf("allocated: %v", got)
			}
			left := s.claims.get(types.NamespacedName{Namespace: "default", Name: "train-1"}).DeepCopy()
			left.Labels = labels
			changed, err := s.Client.ResourceV1().ResourceClaims(left.Namespace).Update(t.Context(), left, metav1.UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			s.feed.observe(changed, fromWatch)
			s.run()
			if s.allocated()["train-0"] {
				t.Error("a gang that lacks a claim has devices")
			}
		})
	}
}

// A gang that is whole may have more claims, which may be refused, too.
func TestAClaimTooManyThatTheAPIServerRefuses(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	s.refuse("train-1", apierrors.NewForbidden(schema.GroupResource{Resource: "resourceclaims"}, "train-1", nil))
	s.make(gpus("train-0", 1, inGang("1")))
	s.run()
	s.make(gpus("train-1", 1, inGang("1")))
	s.run()
	s.run()
	if why := s.unfinished.refused[types.NamespacedName{Namespace: "default", Name: "train"}]; why.pause == 0 {
		t.Error("the claim is tried again all the time")
	}
	if diff := cmp.Diff(map[string]bool{"train-0": true}, s.allocated()); diff != "" {
		t.Errorf("allocated (-want +got):\n%s", diff)
	}
}

// A claim is deleted while it is planned, and the answer to its write gets lost.
func TestAClaimThatGoesWhileItIsPlannedKeepsNothing(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	s.make(gpus("gone", 8, nil))
	r, _ := s.queue.Get()
	claim := s.claims.get(r.NamespacedName)
	choices, err := s.choose(func() ([]fit.Choice, error) {
		defer s.feed.claimGone(claim)
		return s.planner.Together(t.Context(), fit.Ask{Claims: []*resourceapi.ResourceClaim{claim}})
	})
	if err != nil {
		t.Fatal(err)
	}
	s.refuse("gone", apierrors.NewInternalError(errors.New("the answer got lost")))
	if err := s.writeAll(t.Context(), []*resourceapi.ResourceClaim{claim}, choices); !errors.Is(err, claimwrite.ErrUnknown) {
		t.Fatal(err)
	}
	s.queue.Done(r)
	s.run()
	s.make(gpus("next", 8, nil))
	s.run()
	if !s.allocated()["next"] {
		t.Error("the devices of a claim that is gone are given to nobody")
	}
}

// refuse makes the API server refuse to allocate a claim.
func (s *stand) refuse(name string, err error) {
	client, ok := s.Client.(*fake.Clientset)
	if !ok {
		s.t.Fatalf("the client is a %T", s.Client)
	}
	client.PrependReactor("update", "resourceclaims", func(action clienttesting.Action) (bool, runtime.Object, error) {
		update, ok := action.(clienttesting.UpdateAction)
		if !ok {
			return false, nil, nil
		}
		claim, ok := update.GetObject().(*resourceapi.ResourceClaim)
		return ok && claim.Name == name && claim.Status.Allocation != nil, nil, err
	})
}

// One claim too many, which finds no place, must not cost the gang what it has.
func TestAGangWithMoreClaimsThanItsSizeKeepsWhatItHas(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	for _, name := range []string{"train-0", "train-1", "train-2"} {
		s.make(gpus(name, 4, inGang("2")))
	}
	s.run()
	if diff := cmp.Diff(map[string]bool{"train-0": true, "train-1": true}, s.allocated()); diff != "" {
		t.Errorf("allocated (-want +got):\n%s", diff)
	}
}

func TestAGangThatHasServedItsPodsDoesNotWait(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	for _, name := range []string{"train-0", "train-1"} {
		claim := gpus(name, 4, inGang("2"))
		claim.Annotations = map[string]string{claimwrite.AnnotationUsed: "2026-01-01T00:00:00Z"}
		s.make(claim)
	}
	s.run()
	if len(s.events.Events) > 0 {
		t.Errorf("users are told: %s", <-s.events.Events)
	}
	if got := s.allocated(); len(got) > 0 {
		t.Errorf("allocated: %v", got)
	}
}

// A claim that comes while another one of its pod is being written is not known
// to whoever writes that.
func TestAClaimWhosePodsOtherClaimIsBusyIsLookedAtAgain(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p"}}
	for _, name := range []string{"a", "b"} {
		pod.Spec.ResourceClaims = append(pod.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimName: ptr.To(name)})
	}
	s.Consumers.SetPod(pod)
	s.make(gpus("a", 1, nil))
	s.make(gpus("b", 1, nil))
	s.memory.seize("uid-of-a")
	b := Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: "b"}}
	result, err := s.Reconcile(context.Background(), b)
	if err != nil || result.RequeueAfter == 0 {
		t.Errorf("while claim a is busy: %+v, %v", result, err)
	}
	s.memory.release("uid-of-a")
	if _, err := s.Reconcile(context.Background(), b); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]bool{"a": true, "b": true}, s.allocated()); diff != "" {
		t.Errorf("allocated (-want +got):\n%s", diff)
	}
}

// Kubelets tell of their nodes all the time.
func TestOnlyWhatIsNewOfANodeMakesClaimsTryAgain(t *testing.T) {
	s := newStand(t, fleettest.DGX("dgx-0"))
	s.make(gpus("too-many", 9, nil))
	s.run()
	node := fleettest.DGX("dgx-0").Object(nil)
	node.ResourceVersion = "2"
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.Now()}}
	s.feed.node(node)
	if n := s.queue.Len(); n > 0 {
		t.Errorf("%d claims try again because of a heartbeat", n)
	}
	s.feed.node(fleettest.DGX("dgx-0").Object(map[string]string{"new": "label"}))
	if n := s.queue.Len(); n != 1 {
		t.Errorf("%d claims try again because of a label", n)
	}
}

// Two claims that cannot be parted are no reason to take others' devices.
func TestOnlyThoseWhoShareGiveWay(t *testing.T) {
	machine := fleettest.DGX("dgx-0")
	s := newStand(t, machine)
	for name, device := range map[string]string{"gpu": "gpu-0", "pair": "gpu-0-vf", "innocent": "gpu-5", "late": "gpu-0"} {
		claim := fleettest.Allocated(gpus(name, 1, nil), machine, device)
		claim.CreationTimestamp = metav1.Unix(1000, 0) // all at once: their UIDs decide
		claim.Status.Allocation.NodeSelector = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"dgx-0"}}},
		}}}
		if name == "gpu" || name == "pair" {
			claim.Status.ReservedFor = []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: name}}
		}
		s.claims.set(claim)
	}
	lost := map[string]bool{}
	for _, claim := range s.claims.all() {
		if s.stronger(claim, machine.Pool()) != nil {
			lost[claim.Name] = true
		}
	}
	if diff := cmp.Diff(map[string]bool{"pair": true, "late": true}, lost); diff != "" {
		t.Errorf("give way (-want +got):\n%s", diff)
	}
}

// Two look at one claim, as its own turn and its gang's: only who takes the
// devices back says so.
func TestWhatAnotherTakesBackIsToldOnce(t *testing.T) {
	machine := fleettest.DGX("dgx-0")
	s := newStand(t, machine)
	claim := fleettest.Allocated(gpus("unused", 1, nil), machine, "gpu-0")
	claim.Status.Allocation.AllocationTimestamp = &metav1.Time{Time: time.Now().Add(-2 * time.Hour)}
	s.make(claim)
	s.memory.seize(claim.UID)
	s.run()
	if len(s.events.Events) > 0 || !s.allocated()["unused"] {
		t.Errorf("%d events while somebody else is at the claim", len(s.events.Events))
	}
	s.memory.release(claim.UID)
	s.feed.look(claim)
	s.run()
	if len(s.events.Events) != 1 || s.allocated()["unused"] {
		t.Errorf("%d events, allocated: %v", len(s.events.Events), s.allocated())
	}
}
