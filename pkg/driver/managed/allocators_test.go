package managed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
)

func TestHandoverThereAndBack(t *testing.T) {
	n := newNode(t)
	i := n.start(pair(true)...)
	i.mustPublish()
	n.want(Settling, "gpu-0", "gpu-0-vf")
	n.want(Scheduler, "vf-1")
	begun := []Change{{Devices: []string{"gpu-0", "gpu-0-vf"}, Now: Settling, Target: Controller}}
	if diff := cmp.Diff(begun, i.decision.Changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	i.pass(settle - time.Second)
	n.want(Settling, "gpu-0", "gpu-0-vf")
	i.pass(time.Second)
	i.mustPublish()
	n.want(Controller, "gpu-0", "gpu-0-vf")
	if i.decision.Next != 0 || i.WantsLook() {
		t.Errorf("goes on asking, every %s, though nothing is on its way", i.decision.Next)
	}

	i.devices = pair(false)
	i.mustPublish()
	n.want(Settling, "gpu-0", "gpu-0-vf")
	i.pass(settle + 5*time.Second)
	i.mustPublish()
	n.want(Scheduler, "gpu-0", "gpu-0-vf", "vf-1")
}

// The longest that a handover is to take is told to users.
func TestHandoverTakesLittleMoreThanItMust(t *testing.T) {
	n := newNode(t)
	i := n.start(pair(true)...)
	begin := n.now
	for n.api["gpu-0"] != Controller {
		i.mustPublish()
		n.now += i.decision.Next
	}
	if took := n.now - begin; took > settle+confirmEvery {
		t.Errorf("took %s", took)
	}
}

func TestNodeWithoutManagedDevicesHasNoFiles(t *testing.T) {
	n := newNode(t)
	i := n.start(pair(false)...)
	i.pass(time.Minute)
	entries, err := os.ReadDir(n.dir)
	if err != nil || len(entries) > 0 || i.Known() || i.WantsLook() {
		t.Errorf("files %v, %v; known %v, wants to look %v", entries, err, i.Known(), i.WantsLook())
	}
}

// Each case begins with a GPU that is the controller's, on disk and in the API.
func TestWhatIsOnDiskCounts(t *testing.T) {
	for name, test := range map[string]struct {
		between func(*node)
		managed bool
		want    Allocator
	}{
		"restart":              {managed: true, want: Controller},
		"slices were wiped":    {between: func(n *node) { clear(n.api) }, managed: true, want: Controller},
		"reboot, slices wiped": {between: func(n *node) { clear(n.api); n.boot, n.now = "boot-2", time.Second }, managed: true, want: Controller},
		"the file was deleted": {between: func(n *node) { n.mustWrite("") }, managed: true, want: Settling},
		"the file is broken":   {between: func(n *node) { n.mustWrite(`{"version":1,"dec`) }, managed: true, want: Settling},
		"the file makes nonsense": {between: func(n *node) {
			n.mustWrite(`{"version":1,"decider":1,"devices":{"gpu-0":{"allocator":"me"}}}`)
		}, managed: true, want: Settling},
		"broken, and wiped": {between: func(n *node) { n.mustWrite(`{}`); clear(n.api) }, want: Settling},
		"another release published": {between: func(n *node) {
			n.api["gpu-0"] = Scheduler
			n.given["gpu-0"] = map[Allocator]time.Duration{Scheduler: n.now}
		}, managed: true, want: Settling},
		"another configuration": {want: Settling},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			i := n.start(pair(true)...)
			i.pass(settle + time.Minute)
			n.want(Controller, "gpu-0")
			i.end()
			if test.between != nil {
				test.between(n)
			}
			i = n.start(pair(test.managed)...)
			i.mustPublish()
			n.want(test.want, "gpu-0", "gpu-0-vf")
			i.pass(settle + time.Minute)
			i.mustPublish()
			target := Scheduler
			if test.managed {
				target = Controller
			}
			n.want(target, "gpu-0", "gpu-0-vf")
			n.want(Scheduler, "vf-1")
		})
	}
}

// mustWrite replaces the state file; nothing deletes it.
func (n *node) mustWrite(content string) {
	n.t.Helper()
	err := os.Remove(n.file())
	if content != "" {
		err = os.WriteFile(n.file(), []byte(content), 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func TestSettlingIsMeasuredByWhatTheAPISays(t *testing.T) {
	t.Run("the API was away", func(t *testing.T) {
		n := newNode(t)
		i := n.start(pair(true)...)
		i.mustPublish()
		// Nothing of it arrived.
		n.api["gpu-0"], n.api["gpu-0-vf"] = Scheduler, Scheduler
		n.now += time.Hour
		i.mustPublish()
		n.want(Settling, "gpu-0")
		n.now += time.Second
		i.mustPublish()
		n.want(Settling, "gpu-0")
	})
	t.Run("another wrote over it", func(t *testing.T) {
		n := newNode(t)
		i := n.start(pair(true)...)
		i.pass(20 * time.Second)
		n.say("gpu-0-vf", Scheduler)
		i.mustPublish()
		i.pass(25 * time.Second)
		n.want(Settling, "gpu-0", "gpu-0-vf")
		i.pass(10 * time.Second)
		i.mustPublish()
		n.want(Controller, "gpu-0", "gpu-0-vf")
	})
	t.Run("a reboot in between", func(t *testing.T) {
		n := newNode(t)
		i := n.start(pair(true)...)
		i.pass(20 * time.Second)
		i.end()
		n.boot, n.now = "boot-2", 2*time.Hour
		i = n.start(pair(true)...)
		i.mustPublish()
		n.want(Settling, "gpu-0")
	})
	t.Run("a restart in between", func(t *testing.T) {
		n := newNode(t)
		i := n.start(pair(true)...)
		i.pass(20 * time.Second)
		i.end()
		n.now += 20 * time.Second
		i = n.start(pair(true)...)
		i.mustPublish()
		n.want(Controller, "gpu-0")
	})
}

// A VF that takes another's place in a pair brings the whole pair to rest.
func TestNewPartnerSettlesWithTheWhole(t *testing.T) {
	n := newNode(t)
	i := n.start(pair(true)...)
	i.pass(2 * settle)
	n.want(Controller, "gpu-0")
	i.devices = slices.Clone(i.devices)
	i.devices[2].Shares = []string{"set-0"}
	i.mustPublish()
	n.want(Settling, "gpu-0", "gpu-0-vf", "vf-1")
	i.pass(2 * settle)
	i.mustPublish()
	n.want(Controller, "gpu-0", "gpu-0-vf", "vf-1")
}

func TestDeviceThatComesBackHasItsAllocator(t *testing.T) {
	n := newNode(t)
	i := n.start(pair(true)...)
	i.pass(2 * settle)
	all := i.devices
	i.devices = all[2:]
	delete(n.api, "gpu-0")
	delete(n.api, "gpu-0-vf")
	i.pass(time.Hour)
	i.devices = all
	i.mustPublish()
	n.want(Controller, "gpu-0", "gpu-0-vf")
}

func TestAPIWithoutTaintsHasNothingManaged(t *testing.T) {
	n := newNode(t)
	i := n.start(pair(true)...)
	i.impossible = true
	i.pass(time.Hour)
	n.want(Scheduler, "gpu-0", "gpu-0-vf")
	i.impossible = false
	i.mustPublish()
	n.want(Settling, "gpu-0")
	i.pass(2 * settle)
	n.want(Controller, "gpu-0")
	i.impossible = true
	// Kube-scheduler has had them since the taints were dropped.
	decision, err := i.Decide(t.Context(), Question{Devices: i.devices, Impossible: true})
	if err != nil || len(decision.Allocators) > 0 || decision.Next != 0 || i.Known() {
		t.Errorf("decides %+v, %v where nothing can be managed", decision, err)
	}
}

// During an update the old instance and the new one want different things.
func TestTheLatestInstanceDecides(t *testing.T) {
	n := newNode(t)
	before := n.start(pair(false)...)
	before.mustPublish()
	after := n.start(pair(true)...)
	after.mustPublish()
	for range 100 {
		before.mustPublish()
		after.mustPublish()
		n.now += time.Second
	}
	n.want(Controller, "gpu-0", "gpu-0-vf")

	// The update is taken back: the old one, which went on, decides again.
	after.end()
	before.mustPublish()
	n.want(Settling, "gpu-0")
	before.pass(2 * settle)
	before.mustPublish()
	n.want(Scheduler, "gpu-0", "gpu-0-vf")

	again := n.start(pair(true)...)
	again.pass(2 * settle)
	before.mustPublish()
	n.want(Controller, "gpu-0")
}

func TestWhatCannotBeWrittenDoesNotHappen(t *testing.T) {
	n := newNode(t)
	broken := errors.New("no space left on device")
	full := true
	i := n.startWith(func(faultpoint.Step) error {
		if full {
			return broken
		}
		return nil
	}, pair(true)...)
	err := i.publish()
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), n.dir) {
		t.Errorf("want an error that names the folder, got %v", err)
	}
	n.want(Scheduler, "gpu-0")
	full = false
	i.pass(2 * settle)
	n.want(Controller, "gpu-0")
	full = true
	i.devices = pair(false)
	if err := i.publish(); err == nil {
		t.Error("no error")
	}
	n.want(Controller, "gpu-0")
	if entries, err := filepath.Glob(filepath.Join(n.dir, "*"+tempSuffix)); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

var errCrash = errors.New("crash")

// Whatever happens when, no device is one allocator's before what the other has
// begun has settled, and in the end everybody has what the configuration says.
// [node.say] looks at each publication.
func TestFaultAtEveryMoment(t *testing.T) {
	reached := map[faultpoint.Step]bool{}
	for seed := range uint64(80) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { oneLife(t, rand.New(rand.NewPCG(seed, 1)), reached) })
	}
	for _, step := range faultpoint.AllocatorSteps() {
		if !reached[step] {
			t.Errorf("no test reaches %s", step)
		}
	}
}

func oneLife(t *testing.T, random *rand.Rand, reached map[faultpoint.Step]bool) {
	n := newNode(t)
	failing := true
	at := func(step faultpoint.Step) error {
		reached[step] = true
		switch {
		case !failing || random.IntN(4) > 0:
			return nil
		case random.IntN(2) == 0:
			return errors.New("injected error")
		}
		panic(errCrash) //nolint:forbidigo // nothing that is deferred may see an error
	}
	publish := func(i *instance) (crashed bool) { // errors are tried again
		defer func() {
			if r := recover(); r != nil {
				if r != errCrash { //nolint:errorlint // the very value
					panic(r) //nolint:forbidigo // a failure of the code under test
				}
				crashed = true
			}
		}()
		_ = i.publish()
		return false
	}
	running := []*instance{n.startWith(at, pair(false)...)}
	for range 60 {
		n.now += time.Duration(random.IntN(20)) * time.Second
		which := random.IntN(len(running))
		i := running[which]
		switch random.IntN(12) {
		case 0: // another instance, with a configuration of its own
			if len(running) < 3 {
				running = append(running, n.startWith(at, pair(random.IntN(2) == 0)...))
			}
		case 1: // labels change
			i.devices = pair(random.IntN(2) == 0)
		case 2: // kubelet starts
			clear(n.api)
		case 3:
			if random.IntN(4) == 0 && len(running) == 1 {
				if err := os.WriteFile(n.file(), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		case 4: // killed and started again
			i.end()
			running[which] = n.startWith(at, i.devices...)
		}
		if publish(running[which]) {
			running[which].end()
			running[which] = n.startWith(at, running[which].devices...)
		}
	}
	failing = false
	for _, i := range running {
		i.end()
	}
	last := n.start(pair(true)...)
	last.pass(3 * settle)
	last.mustPublish()
	n.want(Controller, "gpu-0", "gpu-0-vf")
	n.want(Scheduler, "vf-1")
	if _, err := os.Stat(n.file() + tempSuffix); err == nil {
		t.Error("a half-written file is left")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"decider":3,"bootID":"b","devices":{"gpu-0":{"allocator":"settling","since":5},"gpu-1":{"allocator":"controller"}}}`))
	f.Add([]byte(`{"version":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decode(data)
		if (s == nil) == (err == nil) {
			t.Fatalf("want either a state or an error, got %v and %v", s, err)
		}
	})
}
