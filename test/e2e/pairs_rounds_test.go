package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	// roundsOfScheduler are those that only the scheduler sees, roundsOfKubelet
	// those in which containers run.
	roundsOfScheduler, roundsOfKubelet = 190, 10
	// mostPerClaim is how many devices the API lets a claim have.
	mostPerClaim = resourceapi.AllocationResultsMaxSize
	// mostThatWait bounds the VFs of a claim that may have to wait. The
	// scheduler tries all combinations of those that are free before it gives up:
	// 2 to the power of their number.
	mostThatWait = 10
)

// Claims for GPUs, for VFs and for pairs come in random order until the node is
// full, then half of them go and those that waited get what is left, then all
// go. Whether that was right is judged by PCI addresses, not by devices:
//
//   - No function is ever in the allocations of two claims. The test follows
//     every change of every claim, in the API server's order.
//   - Once the scheduler has looked at all pods, no claim waits for which
//     enough is free. What is enough is plain counting: so many free GPUs, so
//     many free VFs, so many pairs of which both functions are free. Which VF is
//     a GPU's is for the driver to decide, and a GPU whose VF somebody has is in
//     no pair, although other VFs of its NIC may be free.
//   - Claims for exactly what is left then leave nothing.
//   - VFs of pairs are given singly only when no other VF suits.
//   - In the end everything is free, and one claim for each half gets it all.
//
// ROUNDS_SEED repeats a run, as far as the order in which things happen
// allows that.
func TestAFullNodeGivesNothingTwiceAndKeepsNothingBack(t *testing.T) {
	s := newSpace(t, nil)
	s.waitPairs()
	s.wantVFsPublished()
	published, err := cluster.Slices(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	seed := roundsSeed(t)
	t.Run("group", func(t *testing.T) { // both at the same time: each has a node of its own
		t.Run("scheduler alone", func(t *testing.T) {
			t.Parallel()
			r := newRounds(t, seed)
			r.node = r.imitate(published)
			r.ledger = keepLedger(r.space, newStock(r.node+"/"+harness.DriverName, published))
			r.pod = r.podThatNobodyRuns
			r.playAll(roundsOfScheduler)
		})
		t.Run("through kubelet", func(t *testing.T) {
			t.Parallel()
			r := newRounds(t, seed+1)
			r.node = *published[0].Spec.NodeName
			r.ledger = keepLedger(r.space, newStock(published[0].Spec.Pool.Name, published))
			r.pod = r.podThatShows
			r.grace = 1
			r.look = newEyes(r).look
			r.playAll(roundsOfKubelet)
			r.wantAllVFsOnTheHost()
		})
	})
}

func roundsSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("ROUNDS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("ROUNDS_SEED is %q, want a number", text)
		}
	}
	t.Logf("ROUNDS_SEED=%d", seed)
	return seed
}

// rounds fill a node and empty it, again and again.
type rounds struct {
	*space
	seed   uint64
	random *rand.Rand
	round  int
	serial int
	node   string
	ledger *ledger
	// orders are those of all pods that are there, by the name of pod and claim.
	orders map[string]order
	// pod returns the pod for an order, and grace is how many seconds its
	// containers may take to end.
	pod   func(name string, o order) *corev1.Pod
	grace int64
	// look checks what containers see; it may be nil.
	look func()
}

func newRounds(t *testing.T, seed uint64) *rounds {
	t.Helper()
	return &rounds{space: newSpace(t, nil), seed: seed, orders: map[string]order{}}
}

func (r *rounds) playAll(count int) {
	start := time.Now()
	claims := 0
	for r.round = range count {
		r.random = rand.New(rand.NewPCG(r.seed, uint64(r.round)))
		r.serial = 0
		r.play()
		claims += r.serial
		if r.t.Failed() {
			r.t.Fatalf("in round %d", r.round)
		}
	}
	r.t.Logf("%d rounds with %d claims took %v", count, claims, time.Since(start).Round(time.Second))
	r.round = count
	r.ask(order{{kind: pairType, count: gpusPerNode}}, order{{kind: vfType, count: mostPerClaim}},
		order{{kind: vfType, count: vfsPerNode - gpusPerNode - mostPerClaim}})
	r.settle()
	r.wantFull("all")
	r.release(slices.Collect(maps.Keys(r.orders)))
	r.settle()
}

// play is one round, from an empty node to an empty node.
func (r *rounds) play() {
	bulk, mix := r.draw()
	r.ask(bulk...)
	r.settle()
	r.ask(mix...)
	r.settle()
	r.wantPairsWhole()
	r.ask(r.remainder()...)
	r.settle()
	r.wantFull("exactly what was left")
	if r.look != nil {
		r.look()
	}
	r.release(r.someThatRun())
	r.settle()
	if r.look != nil {
		r.look()
	}
	r.release(slices.Collect(maps.Keys(r.orders)))
	r.settle()
}

// draw returns the orders of a round: more in all than the node has. Large
// numbers of VFs come first, for they must not have to wait.
func (r *rounds) draw() (bulk, mix []order) {
	between := func(least, most int) int { return least + r.random.IntN(most-least+1) }
	gpus, vfs := gpusPerNode+between(1, 5), vfsPerNode+between(1, mostThatWait)
	for range 2 {
		bulk = append(bulk, order{{kind: vfType, count: between(mostThatWait, 30)}})
		vfs -= bulk[len(bulk)-1][0].count
	}
	for gpus > 0 || vfs > 0 {
		var o order
		switch dice := r.random.IntN(8); {
		case gpus > 0 && dice < 3:
			o = order{{kind: pairType, count: min(gpus, between(1, 6))}}
		case gpus > 0 && dice < 5:
			o = order{{kind: gpuType, count: min(gpus, between(1, 6))}}
		case gpus > 0 && vfs > 0 && dice == 5:
			o = order{{kind: gpuType, count: 1}, {kind: vfType, count: between(1, 2)}}
		case vfs > 0:
			o = order{{kind: vfType, count: between(2, mostThatWait)}}
		default:
			continue
		}
		if len(o) == 1 && r.random.IntN(5) == 0 {
			o[0].at = r.somewhere(o[0])
			o[0].count = 1
		}
		for _, w := range o {
			if w.kind != vfType {
				gpus -= w.count
			}
			if w.kind != gpuType {
				vfs -= w.count
			}
		}
		mix = append(mix, o)
	}
	return bulk, mix
}

// somewhere is the address of a GPU, or of a VF, or the NIC of one.
func (r *rounds) somewhere(w want) string {
	from := r.ledger.stock.gpus
	if w.kind == vfType {
		from = r.ledger.stock.vfs
	}
	address := from[r.random.IntN(len(from))]
	if w.kind == vfType && r.random.IntN(2) == 0 {
		return address[:len("0000:18")]
	}
	return address
}

// remainder asks for exactly what is free.
func (r *rounds) remainder() []order {
	free := r.free()
	var orders []order
	for kind, things := range map[string][]string{gpuType: r.ledger.stock.gpus, vfType: r.ledger.stock.vfs} {
		count := 0
		for _, thing := range things {
			if free[thing] {
				count++
			}
		}
		for ; count > 0; count -= mostPerClaim {
			orders = append(orders, order{{kind: kind, count: min(count, mostPerClaim)}})
		}
	}
	return orders
}

func (r *rounds) free() map[string]bool {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	return r.ledger.free()
}

// ask makes a claim for each order, and a pod with that.
//
// The claims of a round are made when those of the last one were seen to have
// given everything back. Who follows the claims sees changes in their order,
// so the scheduler knows of a new claim only when it knows of that.
func (r *rounds) ask(orders ...order) {
	r.t.Helper()
	var group sync.WaitGroup
	for _, o := range orders {
		name := fmt.Sprintf("r%d-%d", r.round, r.serial)
		r.serial++
		r.orders[name] = o
		group.Go(func() {
			claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: o.claim()}
			if _, err := cluster.Client.ResourceV1().ResourceClaims(r.name).Create(r.ctx, claim, metav1.CreateOptions{}); err != nil {
				r.t.Errorf("creating the claim for %s: %v", o, err)
				return
			}
			pod := r.pod(name, o)
			pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: r.node}
			pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
			if _, err := cluster.Client.CoreV1().Pods(r.name).Create(r.ctx, pod, metav1.CreateOptions{}); err != nil {
				r.t.Errorf("creating the pod for %s: %v", o, err)
			}
		})
	}
	group.Wait()
}

// release deletes pods and their claims.
func (r *rounds) release(names []string) {
	r.t.Helper()
	var group sync.WaitGroup
	for _, name := range names {
		delete(r.orders, name)
		group.Go(func() {
			if err := cluster.Client.CoreV1().Pods(r.name).Delete(r.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &r.grace}); err != nil {
				r.t.Errorf("deleting pod %s: %v", name, err)
			}
			if err := cluster.Client.ResourceV1().ResourceClaims(r.name).Delete(r.ctx, name, metav1.DeleteOptions{}); err != nil {
				r.t.Errorf("deleting claim %s: %v", name, err)
			}
		})
	}
	group.Wait()
}

// someThatRun are about half of the pods that have something.
func (r *rounds) someThatRun() []string {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	var some []string
	for _, name := range slices.Sorted(maps.Keys(r.orders)) {
		if len(r.ledger.has[name]) > 0 && r.random.IntN(2) == 0 {
			some = append(some, name)
		}
	}
	return some
}

func (r *rounds) settle() {
	r.t.Helper()
	r.ledger.await(r.ctx, r.t, fmt.Sprintf("settled in round %d", r.round), func() error { return r.ledger.isSettled(r.orders) })
}

// wantFull fails the test if anything is free.
func (r *rounds) wantFull(asked string) {
	r.t.Helper()
	if free := r.free(); len(free) > 0 {
		r.t.Errorf("round %d: claims asked for %s, and these are free: %v", r.round, asked, slices.Sorted(maps.Keys(free)))
	}
}

// wantPairsWhole fails the test if a VF of a pair was given singly though there
// was another for that claim. What is free at the end of filling was free all
// the time.
func (r *rounds) wantPairsWhole() {
	r.t.Helper()
	free := r.free()
	maps.DeleteFunc(free, func(thing string, _ bool) bool { return r.ledger.stock.isPaired(thing) })
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	for name, o := range r.orders {
		for _, w := range o {
			if w.kind != vfType {
				continue
			}
			others := r.ledger.stock.suits(free, w)
			for _, thing := range r.ledger.has[name] {
				if r.ledger.stock.isPaired(thing) && len(others) > 0 {
					r.t.Errorf("round %d: claim %s for %s was given %s of a pair, though these were free: %v", r.round, name, o, thing, others)
				}
			}
		}
	}
}

// imitate makes a node with the devices of the published slices, on which no
// kubelet runs, and returns its name. Only pods that tolerate everything get
// there.
func (r *rounds) imitate(published []resourceapi.ResourceSlice) string {
	r.t.Helper()
	name := "rounds-of-" + r.name
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "e2e/rounds", Effect: corev1.TaintEffectNoSchedule}}},
		Status:     corev1.NodeStatus{Allocatable: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("500")}},
	}
	cleanup := func(what string, remove func(ctx context.Context) error) {
		r.t.Cleanup(func() {
			if err := remove(context.WithoutCancel(r.ctx)); err != nil {
				r.t.Errorf("deleting %s: %v", what, err)
			}
		})
	}
	if _, err := cluster.Client.CoreV1().Nodes().Create(r.ctx, node, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
	cleanup("node "+name, func(ctx context.Context) error {
		return cluster.Client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	})
	// The scheduler tries slices in the order of their names.
	for n, slice := range published {
		copied := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, n)}, Spec: *slice.Spec.DeepCopy()}
		copied.Spec.NodeName, copied.Spec.Pool.Name = &name, name+"/"+harness.DriverName
		if _, err := cluster.Client.ResourceV1().ResourceSlices().Create(r.ctx, copied, metav1.CreateOptions{}); err != nil {
			r.t.Fatal(err)
		}
		cleanup("slice "+copied.Name, func(ctx context.Context) error {
			return cluster.Client.ResourceV1().ResourceSlices().Delete(ctx, copied.Name, metav1.DeleteOptions{})
		})
	}
	return name
}

func (r *rounds) podThatNobodyRuns(name string, _ order) *corev1.Pod {
	return claimant(name, corev1.Container{Name: "none", Image: "localhost/none:none"})
}

// claimant is a pod with the claim of its name.
func claimant(name string, containers ...corev1.Container) *corev1.Pod {
	for n := range containers {
		containers[n].Resources.Claims = []corev1.ResourceClaim{{Name: "claim"}}
	}
	last := len(containers) - 1
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			InitContainers:                containers[:last],
			Containers:                    containers[last:],
			ResourceClaims:                []corev1.PodResourceClaim{{Name: "claim", ResourceClaimName: &name}},
		},
	}
}
