package driver

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// taintServer is the part of an API server that has slices, and may drop the
// taints in them. Unlike the fake one it names objects and counts their
// versions, by which the helper knows what it has written itself.
type taintServer struct {
	client *fake.Clientset
	// drops is whether it has the feature switched off.
	drops atomic.Bool
	// dropsCounters is the same for counters.
	dropsCounters atomic.Bool
	// away makes it answer no question.
	away    atomic.Bool
	asked   atomic.Int32
	writes  atomic.Int32
	version atomic.Int32
}

func serveTaints(n *node) *taintServer {
	s := &taintServer{client: n.client}
	n.client.PrependReactor("create", "resourceslices", s.create)
	n.client.PrependReactor("update", "resourceslices", s.update)
	return s
}

func (s *taintServer) create(action clienttesting.Action) (bool, runtime.Object, error) {
	create, ok := action.(clienttesting.CreateActionImpl)
	if !ok {
		return true, nil, fmt.Errorf("unexpected %T", action)
	}
	slice, err := s.keep(create.GetObject())
	if err != nil {
		return true, nil, err
	}
	if slice.Name == "" {
		slice.Name = slice.GenerateName + slice.ResourceVersion
	}
	if len(create.CreateOptions.DryRun) > 0 {
		s.asked.Add(1)
		if s.away.Load() {
			return true, nil, apierrors.NewServerTimeout(resourceapi.Resource("resourceslices"), "create", 1)
		}
		return true, slice, nil
	}
	s.writes.Add(1)
	return true, slice, s.client.Tracker().Create(action.GetResource(), slice, "")
}

func (s *taintServer) update(action clienttesting.Action) (bool, runtime.Object, error) {
	update, ok := action.(clienttesting.UpdateActionImpl)
	if !ok {
		return true, nil, fmt.Errorf("unexpected %T", action)
	}
	slice, err := s.keep(update.GetObject())
	if err != nil {
		return true, nil, err
	}
	s.writes.Add(1)
	return true, slice, s.client.Tracker().Update(action.GetResource(), slice, "")
}

// keep returns what the server would make of the slice.
func (s *taintServer) keep(object runtime.Object) (*resourceapi.ResourceSlice, error) {
	slice, ok := object.DeepCopyObject().(*resourceapi.ResourceSlice)
	if !ok {
		return nil, fmt.Errorf("unexpected %T", object)
	}
	slice.ResourceVersion = strconv.Itoa(int(s.version.Add(1)))
	for n := range slice.Spec.Devices {
		if s.drops.Load() {
			slice.Spec.Devices[n].Taints = nil
		}
		if s.dropsCounters.Load() {
			slice.Spec.Devices[n].ConsumesCounters = nil
		}
	}
	if s.dropsCounters.Load() {
		slice.Spec.SharedCounters = nil
	}
	return slice, nil
}

// What has a problem is never offered as healthy, whatever the API server makes
// of taints.
func TestAPIServersThatDropTaints(t *testing.T) {
	withheld := func(t *testing.T, n *node, want int) {
		t.Helper()
		expect(t, n.registry, fmt.Sprintf(`
# HELP eks_hybrid_dra_withheld_devices Devices with problems that are not published because the API server does not keep taints.
# TYPE eks_hybrid_dra_withheld_devices gauge
eks_hybrid_dra_withheld_devices %d
`, want), "eks_hybrid_dra_withheld_devices")
	}
	t.Run("from the start", func(t *testing.T) {
		n := newNode(t, "gpu-0", "gpu-1", "gpu-2")
		server := serveTaints(n)
		server.drops.Store(true)
		d := startOnSockets(t, n)
		n.gpus.set("gpu-1", linkDown)
		published(t, n, "gpu-0", "gpu-2")
		eventually(t, "ready without the device", func() error { return d.Ready(t.Context()) })
		withheld(t, n, 1)
		mustPrepare(t, d, newClaim("a", []string{"gpu-1"})) // allocated before
		n.gpus.set("gpu-1")
		published(t, n, "gpu-0", "gpu-1", "gpu-2")
		withheld(t, n, 0)
		if asked, writes := server.asked.Load(), server.writes.Load(); asked != 1 || writes != 3 {
			t.Errorf("%d questions, want 1; %d writes, want 3: all, without the device, all", asked, writes)
		}
	})
	t.Run("since it was replaced", func(t *testing.T) {
		n := newNode(t, "gpu-0", "gpu-1", "gpu-2")
		server := serveTaints(n)
		startOnSockets(t, n)
		n.gpus.set("gpu-1", linkDown)
		published(t, n, "gpu-0", "gpu-1=LinkDown", "gpu-2")
		server.drops.Store(true)
		n.gpus.set("gpu-2", linkDown)
		published(t, n, "gpu-0")
		withheld(t, n, 2)
		writes := server.writes.Load()
		n.gpus.set("gpu-2")
		published(t, n, "gpu-0", "gpu-2")
		if extra := server.writes.Load() - writes; extra != 1 {
			t.Errorf("%d writes for one change: the plugin and the API server do not agree", extra)
		}
	})
	t.Run("not known while it does not answer", func(t *testing.T) {
		n := newNode(t, "gpu-0", "gpu-1")
		server := serveTaints(n)
		d := startOnSockets(t, n)
		server.away.Store(true)
		n.gpus.set("gpu-1", linkDown)
		eventually(t, "asked", func() error {
			if server.asked.Load() == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		published(t, n, "gpu-0", "gpu-1") // nothing could be written
		server.away.Store(false)
		d.republish.send()
		published(t, n, "gpu-0", "gpu-1=LinkDown")
	})
}

// An API server that has learned to keep taints is found out.
func TestAnUpgradedAPIServerIsAskedAgain(t *testing.T) {
	n := newNode(t, "gpu-0")
	server := serveTaints(n)
	server.drops.Store(true)
	d := n.start()
	n.gpus.set("gpu-0", linkDown)
	if err := d.inventory.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	can := func() bool {
		t.Helper()
		kept, err := d.features(t.Context(), d.inventory.pool())
		if err != nil {
			t.Fatal(err)
		}
		return kept.taints
	}
	if can() {
		t.Fatal("not asked")
	}
	server.drops.Store(false)
	if can() {
		t.Error("asked too often")
	}
	d.tainting.asked = time.Now().Add(-askEvery)
	server.away.Store(true)
	if can() {
		t.Error("no answer was taken for a yes")
	}
	d.tainting.asked = time.Now().Add(-askEvery)
	server.away.Store(false)
	if !can() {
		t.Error("not asked again")
	}
}

// Somebody who may not ask is not kept from publishing what is healthy.
func TestARefusedQuestionIsANo(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	n.gpus.set("gpu-0", linkDown)
	n.client.PrependReactor("create", "resourceslices", failWith(apierrors.NewForbidden(resourceapi.Resource("resourceslices"), "", errors.New("policy"))))
	d := n.start()
	if kept, err := d.features(t.Context(), d.inventory.pool()); kept.taints || err != nil {
		t.Errorf("got %v, %v", kept, err)
	}
}
