package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// use is what a short pod saw.
type use struct {
	pod, gpu string
	// container is what the node calls the pod's container.
	container string
}

// busy is a node on which short pods with claims start and end all the time.
type busy struct {
	s       *space
	lanes   sync.WaitGroup
	mu      sync.Mutex
	stopped bool
	uses    []use
	errs    []error
}

// keepBusy starts short pods with a claim of one GPU each, so many at a time,
// one after the other, until end. The test fails if one of them does.
func (s *space) keepBusy(lanes int) *busy {
	s.t.Helper()
	s.template("short", gpus(1))
	ctx, cancel := context.WithCancel(s.ctx)
	b := &busy{s: s}
	s.t.Cleanup(func() {
		cancel()
		b.lanes.Wait()
	})
	for lane := range lanes {
		b.lanes.Go(func() {
			for round := 0; b.note(b.s.shortPod(ctx, fmt.Sprintf("short-%d-%d", lane, round))); round++ {
			}
		})
	}
	return b
}

// note keeps what became of a pod and tells whether another should follow.
func (b *busy) note(u use, err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.errs = append(b.errs, err)
	} else {
		b.uses = append(b.uses, u)
	}
	return err == nil && !b.stopped
}

// await returns when so many more pods have come and gone.
func (b *busy) await(more int) {
	b.s.t.Helper()
	done := func() (int, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.uses), errors.Join(b.errs...)
	}
	before, _ := done()
	eventually(b.s.t, fmt.Sprintf("run %d more pods", more), func() error {
		now, err := done()
		if err != nil {
			b.s.t.Fatal(err)
		}
		if now < before+more {
			return fmt.Errorf("%d of them came and went", now-before)
		}
		return nil
	})
}

// end lets the last pods end, and fails the test if one failed, or if two had
// a GPU at the same time. It returns the number of pods.
func (b *busy) end(lives *harness.Lives) int {
	b.s.t.Helper()
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	b.lanes.Wait()
	if err := errors.Join(b.errs...); err != nil {
		b.s.t.Fatal(err)
	}
	type span struct {
		use
		life harness.Life
	}
	byGPU := map[string][]span{}
	for _, u := range b.uses {
		byGPU[u.gpu] = append(byGPU[u.gpu], span{u, b.s.life(lives, u.container, ended)})
	}
	for gpu, spans := range byGPU {
		slices.SortFunc(spans, func(a, b span) int { return a.life.Made.Compare(b.life.Made) })
		for n, later := range spans[1:] {
			if earlier := spans[n]; !later.life.Made.After(earlier.life.Ended) {
				b.s.t.Errorf("GPU %s was given to pod %s at %v, though pod %s had it until %v", gpu, later.pod, later.life.Made, earlier.pod, earlier.life.Ended)
			}
		}
	}
	return len(b.uses)
}

// shortPod runs a pod that lists its GPU and ends, and returns when it is gone.
func (s *space) shortPod(ctx context.Context, name string) (use, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	pod := newPod(name, "short")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	pod.Spec.Containers[0].Command = pod.Spec.InitContainers[0].Command
	pod.Spec.InitContainers = nil
	pods := cluster.Client.CoreV1().Pods(s.name)
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return use{}, fmt.Errorf("creating pod %s: %w", name, err)
	}
	pod, err := cluster.WaitPod(ctx, s.name, name, harness.Succeeded())
	if err != nil {
		return use{}, err
	}
	var text string
	// On a machine that has much to do, a container that has ended may be
	// reported before its output is in its log.
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		text, err = cluster.Logs(ctx, s.name, name, "work")
		return text != "", err
	})
	if err != nil && !wait.Interrupted(err) {
		return use{}, err
	}
	seen := harness.GPUs(text)
	if len(seen) != 1 {
		return use{}, fmt.Errorf("pod %s sees %d GPUs, want 1; it printed:\n%s", name, len(seen), text)
	}
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return use{}, fmt.Errorf("deleting pod %s: %w", name, err)
	}
	return use{pod: name, gpu: seen[0], container: harness.ContainerID(pod, "work")}, cluster.WaitPodGone(ctx, s.name, name)
}
