package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

const (
	// racers is how many nodes change hands all the while.
	racers = 4
	// settle is how long a node that changes hands is given to nobody: on a busy
	// machine what an allocator has decided may be written late.
	settle = 8 * time.Second
	// held is how long a node belongs to one allocator.
	held = 4 * time.Second
)

// Both allocators give away devices of the same nodes, whichever is the one at
// the time, as fast as they can. RACE_MINUTES says for how long.
func TestNoDeviceIsGivenTwiceByTwoAllocators(t *testing.T) {
	minutes, err := strconv.Atoi(cmp.Or(os.Getenv("RACE_MINUTES"), "1"))
	if err != nil {
		t.Fatalf("RACE_MINUTES: %v", err)
	}
	s := newSite(t, racers)
	s.start(settings{})
	watch := s.watchDevices()
	ctx, cancel := context.WithTimeout(s.ctx, time.Duration(minutes)*time.Minute)
	defer cancel()
	race := &race{s: s, ctx: ctx}
	for i, node := range s.nodes {
		race.run(func() error { return race.changeHands(node, i) })
	}
	for i := range 3 {
		race.run(func() error { return race.claims(fmt.Sprint("ours-", i)) })
		race.run(func() error { return race.pods(fmt.Sprint("theirs-", i)) })
	}
	race.wg.Wait()
	if err := errors.Join(race.errs...); err != nil {
		t.Error(err)
	}
	given, twice := watch()
	for allocator, n := range given {
		t.Logf("%s gave away %d devices", allocator, n)
	}
	if given[managed] == 0 || given[unmanaged] == 0 {
		t.Error("not both allocators took part")
	}
	for _, what := range twice {
		t.Error(what)
	}
	fmt.Printf("race_double_allocations %d count\n", len(twice))
}

// race is what goes on at the same time.
type race struct {
	s    *site
	ctx  context.Context
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

func (r *race) run(do func() error) {
	r.wg.Go(func() {
		if err := do(); err != nil && r.ctx.Err() == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.errs = append(r.errs, err)
		}
	})
}

// pause returns false at the end of the race.
func (r *race) pause(d time.Duration) bool {
	select {
	case <-r.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// changeHands gives a node to one allocator after the other, as the kubelet
// plugin does.
func (r *race) changeHands(node string, offset int) error {
	r.pause(time.Duration(offset) * held / racers)
	for generation := int64(2); ; {
		for _, step := range []struct {
			by   given
			wait time.Duration
		}{{managed, held}, {settling, settle}, {unmanaged, held}, {settling, settle}} {
			if err := r.s.write(node, step.by, generation); err != nil {
				return err
			}
			generation++
			if !r.pause(step.wait) {
				return nil
			}
		}
	}
}

// claims makes claims of the managed class and deletes them when they have been
// allocated for a moment.
func (r *race) claims(prefix string) error {
	claims := cluster.Client.ResourceV1().ResourceClaims(r.s.name)
	for n := 0; ; n++ {
		name := fmt.Sprint(prefix, "-", n)
		if _, err := claims.Create(r.ctx, claimFor(name, r.s.class, int64(1+n%4)), metav1.CreateOptions{}); err != nil {
			return err
		}
		if n < 4 { // so many at a time
			continue
		}
		if !r.pause(100 * time.Millisecond) {
			return nil
		}
		if err := claims.Delete(r.ctx, fmt.Sprint(prefix, "-", n-4), metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
}

// pods makes pods with claims that kube-scheduler allocates, and deletes them.
func (r *race) pods(prefix string) error {
	client := cluster.Client
	for n := 0; ; n++ {
		name := fmt.Sprint(prefix, "-", n)
		if _, err := client.ResourceV1().ResourceClaims(r.s.name).Create(r.ctx, claimFor(name, r.s.plain, int64(1+n%4)), metav1.CreateOptions{}); err != nil {
			return err
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
			NodeSelector:   map[string]string{"site": r.s.name},
			Tolerations:    []corev1.Toleration{{Key: publishedOnly, Operator: corev1.TolerationOpExists}},
			ResourceClaims: []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &name}},
			Containers: []corev1.Container{{
				Name: "work", Image: "nvidia/cuda:12.3.0-base-ubuntu22.04", Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "gpu"}}},
			}},
		}}
		for { // a new namespace has no service account yet
			_, err := client.CoreV1().Pods(r.s.name).Create(r.ctx, pod, metav1.CreateOptions{})
			if err == nil {
				break
			}
			if !apierrors.IsForbidden(err) {
				return err
			}
			if !r.pause(100 * time.Millisecond) {
				return nil
			}
		}
		if n < 4 {
			continue
		}
		if !r.pause(200 * time.Millisecond) {
			return nil
		}
		old := fmt.Sprint(prefix, "-", n-4)
		now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
		if err := errors.Join(client.CoreV1().Pods(r.s.name).Delete(r.ctx, old, now), client.ResourceV1().ResourceClaims(r.s.name).Delete(r.ctx, old, now)); err != nil {
			return err
		}
	}
}

// watchDevices follows all claims of the site, in the order of their changes,
// until the returned function is called. That tells how many devices each
// allocator gave away, and which ones were given while another claim had them.
func (s *site) watchDevices() func() (map[given]int, []string) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	holders := map[string]map[string]bool{} // claims by device
	has := map[string][]string{}            // devices by claim
	counts := map[given]int{}
	var twice []string
	set := func(claim *resourceapi.ResourceClaim, gone bool) {
		var now []string
		if claim.Status.Allocation != nil && !gone {
			for _, result := range claim.Status.Allocation.Devices.Results {
				now = append(now, result.Pool+"/"+result.Device)
			}
		}
		if slices.Equal(now, has[claim.Name]) {
			return
		}
		for _, device := range has[claim.Name] {
			delete(holders[device], claim.Name)
		}
		by := unmanaged
		if claim.Spec.Devices.Requests[0].Exactly.DeviceClassName == s.class {
			by = managed
		}
		for _, device := range now {
			counts[by]++
			if holders[device] == nil {
				holders[device] = map[string]bool{}
			}
			if len(holders[device]) > 0 {
				twice = append(twice, fmt.Sprintf("%s is given to %s, and %v has it", device, claim.Name, slices.Collect(maps.Keys(holders[device]))))
			}
			holders[device][claim.Name] = true
		}
		has[claim.Name] = now
	}
	handle := func(gone bool) func(object any) {
		return func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			if claim, ok := object.(*resourceapi.ResourceClaim); ok {
				set(claim, gone)
			}
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(cluster.Client.ResourceV1().RESTClient(), "resourceclaims", s.name, func(*metav1.ListOptions) {}),
		ObjectType:    &resourceapi.ResourceClaim{},
		Handler:       cache.ResourceEventHandlerFuncs{AddFunc: handle(false), UpdateFunc: func(_, object any) { set(object.(*resourceapi.ResourceClaim), false) }, DeleteFunc: handle(true)}, //nolint:forcetypeassert // it is what is watched
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		informer.RunWithContext(ctx)
	}()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		s.t.Fatal("claims cannot be watched")
	}
	return func() (map[given]int, []string) {
		cancel()
		<-ended
		return counts, twice
	}
}
