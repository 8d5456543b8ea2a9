package managed

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
)

const settle = 30 * time.Second

// node is what outlives an instance of the plugin: a disk, a clock, and what the
// API says.
type node struct {
	t    *testing.T
	dir  string
	boot string
	now  time.Duration
	api  map[string]Allocator
	// given is when an allocator could last give a device, by both names.
	given map[string]map[Allocator]time.Duration
}

func newNode(t *testing.T) *node {
	return &node{t: t, dir: t.TempDir(), boot: "boot-1", now: time.Hour, api: map[string]Allocator{}, given: map[string]map[Allocator]time.Duration{}}
}

// instance is one process of the plugin.
type instance struct {
	*Allocators
	node    *node
	devices []Device
	// impossible tells that the API server keeps no taints.
	impossible bool
	decision   Decision
}

func (n *node) start(devices ...Device) *instance {
	n.t.Helper()
	return n.startWith(nil, devices...)
}

func (n *node) startWith(at func(faultpoint.Step) error, devices ...Device) *instance {
	n.t.Helper()
	i := &instance{node: n, devices: devices, Allocators: New(Options{
		Dir: n.dir, BootID: n.boot, Settle: settle, At: at, Clock: func() (time.Duration, error) { return n.now, nil },
	})}
	n.t.Cleanup(i.end)
	return i
}

// end ends the process, whose locks the kernel drops.
func (i *instance) end() {
	if err := i.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		i.node.t.Error(err)
	}
}

// publish does what the driver does whenever it publishes.
func (i *instance) publish() error {
	q := Question{Devices: i.devices, Impossible: i.impossible}
	if i.WantsLook() {
		q.Seen = maps.Clone(i.node.api)
	}
	ctx := klog.NewContext(i.node.t.Context(), klog.Logger{}) // logs nothing
	decision, err := i.Decide(ctx, q)
	i.decision = decision
	for _, d := range i.devices {
		allocator, ok := decision.Allocators[d.Name]
		if !ok {
			allocator = Scheduler
		}
		i.node.say(d.Name, allocator)
	}
	return err
}

func (i *instance) mustPublish() {
	i.node.t.Helper()
	if err := i.publish(); err != nil {
		i.node.t.Fatal(err)
	}
}

// say writes into the API who gives a device. It fails the test if the one may
// begin before what the other has begun has settled.
func (n *node) say(device string, allocator Allocator) {
	n.t.Helper()
	other := map[Allocator]Allocator{Scheduler: Controller, Controller: Scheduler}
	if before, ok := n.api[device]; ok {
		if n.given[device] == nil {
			n.given[device] = map[Allocator]time.Duration{}
		}
		n.given[device][before] = n.now // until now
	}
	n.api[device] = allocator
	last, ok := n.given[device][other[allocator]]
	if ok && allocator != Settling && n.now-last < settle {
		n.t.Errorf("%s is the %s's %s after it was the %s's", device, allocator, n.now-last, other[allocator])
	}
}

// want fails the test unless the API says so of all devices.
func (n *node) want(allocator Allocator, devices ...string) {
	n.t.Helper()
	for _, name := range devices {
		if got := n.api[name]; got != allocator {
			n.t.Errorf("the API says that %s is the %s's, want the %s's", name, got, allocator)
		}
	}
}

// pass publishes as often as the instance wants to, until some time has passed.
func (i *instance) pass(d time.Duration) {
	i.node.t.Helper()
	for end := i.node.now + d; ; {
		i.mustPublish()
		if i.decision.Next == 0 || i.node.now+i.decision.Next > end {
			i.node.now = end
			return
		}
		i.node.now += i.decision.Next
	}
}

func (n *node) file() string { return filepath.Join(n.dir, stateFile) }

func pair(managed bool) []Device {
	return []Device{
		{Name: "gpu-0", Shares: []string{"set-0"}, Managed: managed}, {Name: "gpu-0-vf", Shares: []string{"set-0"}}, {Name: "vf-1"},
	}
}
