package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
)

// On a node for claims: there is nothing else that would have it tried again.
func TestWhatAPodUsesIsTriedUntilItIsHeld(t *testing.T) {
	for name, test := range map[string]struct {
		hinder, allow func(*node)
	}{
		"a claim had it": {func(n *node) { n.claim("a", 0) }, func(n *node) { n.unclaim("a", 0) }},
		"the disk fails": {
			func(n *node) { n.move("claims", "away") }, func(n *node) { n.move("away", "claims") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/pod"}, UIDs: []types.UID{"pod"}})
			p := n.open("gpu", device.Inventory{}, forClaims)
			t.Cleanup(func() { _ = p.store.Close() })
			test.hinder(n)
			p.Found(t.Context(), "gpu", gpus(0), nil)
			p.step(t.Context())
			if p.Reserves(gpus(0).Devices[0]) {
				t.Fatal("it was taken already")
			}
			test.allow(n)
			p.step(t.Context())
			if n.holder(0) == "" || !p.Reserves(gpus(0).Devices[0]) {
				t.Errorf("a pod uses GPU 0; its holder is %q, and it is reserved: %v", n.holder(0), p.Reserves(gpus(0).Devices[0]))
			}
		})
	}
}

// move renames a folder of the driver's data.
func (n *node) move(from, to string) {
	n.t.Helper()
	if err := os.Rename(filepath.Join(n.dir, "data", from), filepath.Join(n.dir, "data", to)); err != nil {
		n.t.Fatal(err)
	}
}

// What kubelet did not know of when it was asked last it may know of by now.
func TestSilenceMakesNoPodForgotten(t *testing.T) {
	for name, err := range map[string]error{"incomplete": fmt.Errorf("%w: empty", kubelet.ErrIncomplete), "silent": errors.New("stopped")} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.open("gpu", gpus(0), func(o *Options) { o.LeftOverWait = time.Nanosecond })
			t.Cleanup(func() { _ = p.store.Close() })
			use := kubelet.Use{Pods: []string{"ns/pod"}, UIDs: []types.UID{"pod"}}
			n.kubelet.use("GPU-0", use)
			n.processes.set("pod")
			look(n, p)
			n.kubelet.set(map[string]kubelet.Use{"GPU-0": {UIDs: use.UIDs}}, nil)
			p.step(t.Context())
			n.kubelet.set(map[string]kubelet.Use{"GPU-0": use}, err)
			p.step(t.Context())
			if problem := p.states["GPU-0"].problem; problem != "" {
				t.Errorf("it is unhealthy: %s", problem)
			}
		})
	}
}

// waiting is a family that waits for others, as that of GPUs does for a look at all.
type waiting struct {
	*fakeFamily
	all func(context.Context) error
}

func (w waiting) Prepare(ctx context.Context, g device.Grant) (device.Edits, error) {
	if err := w.all(ctx); err != nil {
		return device.Edits{}, err
	}
	return w.fakeFamily.Prepare(ctx, g)
}

func TestPreparationsThatHangDoSoSideBySide(t *testing.T) {
	n := newNode(t)
	numbers := []int{0, 1, 2, 3, 4, 5, 6, 7}
	begun, hang := make(chan struct{}, len(numbers)), false
	p := n.open("gpu", gpus(numbers...), func(o *Options) {
		o.PrepareWithin = time.Minute
		o.Families = []Family{waiting{n.gpus, func(ctx context.Context) error {
			if !hang {
				return nil
			}
			begun <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}}}
	})
	t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	hang = true
	ctx, cancel := context.WithCancel(t.Context())
	p.Found(t.Context(), "gpu", gpus(numbers...), nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.step(ctx)
	}()
	for range numbers {
		<-begun
	}
	cancel()
	<-done
}

func TestSocketsOfKilledInstancesGoAlsoWhereNothingIsServedAnyMore(t *testing.T) {
	n := newNode(t)
	dir := filepath.Join(n.dir, "sockets")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := n.open("gpu", gpus(0), func(o *Options) { o.Dir = dir; forClaims(o) })
	t.Cleanup(func() { _ = p.store.Close() })
	for _, name := range []string{p.socketPrefix() + "01234567.sock", "other.sock"} {
		leftSocket(t, filepath.Join(dir, name))
	}
	if _, err := p.newServers(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "other.sock" {
		t.Errorf("left are %v, want other.sock: %v", left, err)
	}
}

// Kubelet would give the devices of a plugin that is being replaced to nobody, and
// refuse pods that it admits anew.
func TestAnEndingInstanceTellsOfNoProblems(t *testing.T) {
	n := newNode(t)
	ending := false
	p := n.open("gpu", gpus(0), func(o *Options) {
		o.Families = []Family{waiting{n.gpus, func(ctx context.Context) error {
			if ending {
				<-ctx.Done()
			}
			return ctx.Err()
		}}}
	})
	t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	ending = true
	p.Found(t.Context(), "gpu", gpus(0), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.update(ctx)
	if s := p.states["GPU-0"]; !s.held || s.problem != "" {
		t.Errorf("kubelet is told %+v", s)
	}
}
