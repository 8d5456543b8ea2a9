package fit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// world is a fleet with a planner.
type world struct {
	testing.TB
	*fleet.Fleet
	*Planner
	machines map[string]fleettest.Machine
	claims   int
}

func newWorld(t testing.TB, machines ...fleettest.Machine) *world {
	t.Helper()
	w := &world{TB: t, Fleet: fleet.New(fleettest.Driver), machines: map[string]fleettest.Machine{}}
	for _, c := range fleettest.Classes() {
		w.SetClass(c)
	}
	for _, m := range machines {
		w.add(m, nil)
	}
	w.Planner = New(w.Fleet)
	return w
}

func (w *world) add(m fleettest.Machine, labels map[string]string) {
	w.machines[m.Node] = m
	w.SetNode(m.Object(labels))
	for _, s := range m.Slices() {
		w.SetSlice(s)
	}
}

// use has a claim take devices of a node.
func (w *world) use(node string, devices ...string) *resourceapi.ResourceClaim {
	w.claims++
	c := fleettest.Allocated(fleettest.Claim(fmt.Sprintf("used-%d", w.claims)), w.machines[node], devices...)
	w.SetClaim(c)
	return c
}

// ask places a claim and returns what it gets, as "node: device device".
func (w *world) ask(requests ...resourceapi.DeviceRequest) string {
	w.Helper()
	return w.askFor(Ask{Claims: []*resourceapi.ResourceClaim{fleettest.Claim("it", requests...)}})
}

func (w *world) askFor(ask Ask) string {
	w.Helper()
	choice, err := w.One(w.Context(), ask)
	if err != nil {
		return "error: " + err.Error()
	}
	return w.text(choice)
}

func (w *world) text(c Choice) string {
	var names []string
	for _, r := range c.Allocation.Devices.Results {
		if r.Pool != c.Node+"/"+fleettest.Driver {
			w.Errorf("pool %s for node %s", r.Pool, c.Node)
		}
		names = append(names, r.Device)
	}
	slices.Sort(names)
	return c.Node + ": " + strings.Join(names, " ")
}

func gpus(n int64) resourceapi.DeviceRequest {
	return fleettest.Request("gpu", fleettest.ClassGPU, n)
}

func TestOneGPU(t *testing.T) {
	w := newWorld(t, fleettest.DGX("b"), fleettest.DGX("a"))
	if got := w.ask(gpus(1)); got != "a: gpu-0" {
		t.Error(got)
	}
	w.use("b", "gpu-5")
	if got := w.ask(gpus(1)); got != "b: gpu-4" {
		t.Errorf("not beside what is used: %s", got)
	}
	if got := w.ask(gpus(4)); got != "b: gpu-0 gpu-1 gpu-2 gpu-3" {
		t.Errorf("not on one NUMA node: %s", got)
	}
	if got := w.ask(gpus(8)); got != "a: gpu-0 gpu-1 gpu-2 gpu-3 gpu-4 gpu-5 gpu-6 gpu-7" {
		t.Error(got)
	}
	if _, err := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{fleettest.Claim("it", gpus(9))}}); !errors.Is(err, ErrNoFit) {
		t.Error(err)
	} else {
		t.Log(err)
	}
	c, _ := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{fleettest.Claim("it", gpus(4))}})
	t.Log(c.Why)
}
