package fit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

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

func vfs(n int64) resourceapi.DeviceRequest {
	return fleettest.Request("vf", fleettest.ClassVF, n)
}

func pairs(n int64) resourceapi.DeviceRequest {
	return fleettest.Request("pair", fleettest.ClassGPUVF, n)
}

func TestUnhealthyDevices(t *testing.T) {
	m := fleettest.DGX("a")
	m.Sick = []string{"gpu-0", "gpu-0-vf"}
	w := newWorld(t, m)
	if got := w.ask(gpus(1)); got != "a: gpu-1" {
		t.Error(got)
	}
	if got := w.ask(gpus(8)); !strings.Contains(got, "on 1 of them too few of the devices that match are free and healthy") {
		t.Error(got)
	}
	if got := w.ask(fleettest.All("r", fleettest.ClassGPU)); !strings.HasPrefix(got, "error: nothing fits") {
		t.Error(got)
	}
	r := gpus(8)
	r.Exactly.Tolerations = []resourceapi.DeviceToleration{{Key: "eks-hybrid-dra/unhealthy", Operator: resourceapi.DeviceTolerationOpExists}}
	if got := w.ask(r); !strings.HasPrefix(got, "a: gpu-0 gpu-1") {
		t.Errorf("tolerated: %s", got)
	}
}

func TestDevicesOfOthers(t *testing.T) {
	plain := fleettest.DGX("a")
	plain.Managed = false
	w := newWorld(t, plain, fleettest.DGX("b"))
	if got := w.ask(gpus(1)); got != "b: gpu-0" {
		t.Error(got)
	}
	// Also a class that forgets to look at the attribute gets none of them.
	if got := w.ask(fleettest.Request("r", "gpu."+fleettest.Driver, 1)); got != "b: gpu-0" {
		t.Error(got)
	}
}

func TestAdminAccess(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"))
	w.use("a", "gpu-0", "gpu-1")
	r := gpus(8)
	r.Exactly.AdminAccess = ptr.To(true)
	choice, err := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{fleettest.Claim("it", r)}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(choice.Allocation.Devices.Results); n != 8 || !*choice.Allocation.Devices.Results[0].AdminAccess {
		t.Errorf("%d devices: %v", n, choice.Allocation)
	}
	if err := w.Assume(choice.Claim, &choice.Allocation); err != nil {
		t.Error(err)
	}
	if got := w.ask(gpus(6)); got != "a: gpu-2 gpu-3 gpu-4 gpu-5 gpu-6 gpu-7" {
		t.Errorf("an administrator has taken devices: %s", got)
	}
}

func TestConstraints(t *testing.T) {
	root := resourceapi.FullyQualifiedName("resource.kubernetes.io/pcieRoot")
	numa := resourceapi.FullyQualifiedName("resource.kubernetes.io/numaNode")
	w := newWorld(t, fleettest.DGX("a"))
	w.use("a", "gpu-0", "gpu-4", "gpu-5", "gpu-6")
	for name, tc := range map[string]struct {
		requests    []resourceapi.DeviceRequest
		constraints []resourceapi.DeviceConstraint
		want        string
	}{
		"together":      {one(gpus(3)), []resourceapi.DeviceConstraint{{MatchAttribute: &numa}}, "a: gpu-1 gpu-2 gpu-3"},
		"too many":      {one(gpus(4)), []resourceapi.DeviceConstraint{{MatchAttribute: &numa}}, "error: nothing fits: 1 node of 1 may be used; on 1 of them free devices do not meet all conditions together"},
		"apart":         {one(vfs(3)), []resourceapi.DeviceConstraint{{DistinctAttribute: &root}}, "a: vf-0-0 vf-1-0 vf-2-0"},
		"apart as NUMA": {one(gpus(2)), []resourceapi.DeviceConstraint{{DistinctAttribute: &numa}}, "a: gpu-1 gpu-7"},
		"some together": {
			[]resourceapi.DeviceRequest{gpus(1), vfs(1), fleettest.Request("far", fleettest.ClassVF, 1, `device.attributes["resource.kubernetes.io"].numaNode == 1`)},
			[]resourceapi.DeviceConstraint{{MatchAttribute: &root, Requests: []string{"gpu", "vf"}}}, "a: gpu-7 vf-7-0 vf-7-1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := fleettest.Claim("it", tc.requests...)
			c.Spec.Devices.Constraints = tc.constraints
			if got := w.askFor(Ask{Claims: []*resourceapi.ResourceClaim{c}}); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestClaimsOfOnePod(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"), fleettest.DGX("b"))
	w.use("a", "gpu-0", "gpu-4")
	claims := []*resourceapi.ResourceClaim{fleettest.Claim("x", gpus(4)), fleettest.Claim("y", vfs(1)), fleettest.Claim("z", gpus(4))}
	choices, err := w.Together(t.Context(), Ask{Claims: claims})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"b: gpu-0 gpu-1 gpu-2 gpu-3", "b: vf-0-0", "b: gpu-4 gpu-5 gpu-6 gpu-7"} {
		if got := w.text(choices[i]); got != want || choices[i].Claim != claims[i].UID {
			t.Errorf("claim %d: %s", i, got)
		}
	}
}

func TestAllocationIsAsTheSchedulerMakesIt(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"))
	class := fleettest.Class(fleettest.ClassGPU, "gpu", true)
	class.ResourceVersion = "2"
	config := resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{Driver: fleettest.Driver, Parameters: runtime.RawExtension{Raw: []byte(`{}`)}}}
	class.Spec.Config = []resourceapi.DeviceClassConfiguration{{DeviceConfiguration: config}}
	w.SetClass(class)
	c := fleettest.Claim("it", fleettest.FirstOf("r", gpus(9), gpus(1)), vfs(1))
	c.Spec.Devices.Config = []resourceapi.DeviceClaimConfiguration{
		{Requests: []string{"r/gpu"}, DeviceConfiguration: config}, {Requests: []string{"vf"}, DeviceConfiguration: config}, {DeviceConfiguration: config},
	}
	c.Spec.Devices.Requests[0].FirstAvailable[0].Name = "many"
	choice, err := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{c}})
	if err != nil {
		t.Fatal(err)
	}
	want := resourceapi.AllocationResult{
		Devices: resourceapi.DeviceAllocationResult{
			Results: []resourceapi.DeviceRequestAllocationResult{
				{Request: "r/gpu", Driver: fleettest.Driver, Pool: "a/eks-hybrid-dra", Device: "gpu-0"},
				{Request: "vf", Driver: fleettest.Driver, Pool: "a/eks-hybrid-dra", Device: "vf-0-0"},
			},
			Config: []resourceapi.DeviceAllocationConfiguration{
				{Source: resourceapi.AllocationConfigSourceClass, Requests: []string{"r/gpu"}, DeviceConfiguration: config},
				{Source: resourceapi.AllocationConfigSourceClaim, Requests: []string{"r/gpu"}, DeviceConfiguration: config},
				{Source: resourceapi.AllocationConfigSourceClaim, Requests: []string{"vf"}, DeviceConfiguration: config},
				{Source: resourceapi.AllocationConfigSourceClaim, DeviceConfiguration: config},
			},
		},
		NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}},
		}}},
	}
	if diff := cmp.Diff(want, choice.Allocation); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if choice.Why != "gpu-0, vf-0-0 of node a, side by side of a machine that was free, the best of 1 node that fit" {
		t.Error(choice.Why)
	}
}

func TestWhichNodesMayBeUsed(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"), fleettest.DGX("b"), fleettest.DGX("c"), fleettest.DGX("d"))
	cordoned, tainted := fleettest.DGX("a").Object(nil), fleettest.DGX("b").Object(nil)
	cordoned.Spec.Unschedulable = true
	tainted.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoExecute}}
	w.SetNode(cordoned)
	w.SetNode(tainted)
	claims := []*resourceapi.ResourceClaim{fleettest.Claim("it", gpus(1))}
	in := func(names ...string) func(*corev1.Node) bool {
		return func(n *corev1.Node) bool { return slices.Contains(names, n.Name) }
	}
	for name, tc := range map[string]struct {
		ask  Ask
		want string
	}{
		"any":                            {Ask{}, "c: gpu-0"},
		"one that is cordoned":           {Ask{Nodes: in("a")}, "a: gpu-0"},
		"one is avoided":                 {Ask{Avoid: in("c")}, "d: gpu-0"},
		"cordoned before avoided":        {Ask{Avoid: in("c", "d")}, "a: gpu-0"},
		"avoided if there is no other":   {Ask{Nodes: in("c"), Avoid: in("c")}, "c: gpu-0"},
		"none":                           {Ask{Nodes: in("nowhere")}, "error: nothing fits: of 4 nodes, none has devices of this driver and may be used"},
		"the claim's own filter matters": {Ask{NodesOf: map[types.UID]func(*corev1.Node) bool{claims[0].UID: in("d")}}, "d: gpu-0"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.ask.Claims = claims
			if got := w.askFor(tc.ask); got != tc.want {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestWordsOfErrors(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"), fleettest.DGX("b"))
	w.use("a", "gpu-0")
	w.use("b", "gpu-0")
	for name, tc := range map[string]struct {
		request resourceapi.DeviceRequest
		noFit   bool
		want    string
	}{
		"taken":          {gpus(8), true, "nothing fits: 2 nodes of 2 may be used; on 2 of them too few of the devices that match are free and healthy"},
		"there are none": {gpus(9), true, "nothing fits: 2 nodes of 2 may be used; on 2 of them too few devices match"},
		"no class":       {fleettest.Request("r", "nobody", 1), false, `claim default/it, request r: there is no DeviceClass "nobody"`},
		"a selector that does not compile": {
			fleettest.Request("r", fleettest.ClassGPU, 1, "device.attributes["), false, "selector #0: CEL compile error: ",
		},
		"a selector that fails on every device": {
			fleettest.Request("r", fleettest.ClassGPU, 1, `device.attributes["eks-hybrid-dra"].nothing == "x"`), true, "no such key: nothing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{fleettest.Claim("it", tc.request)}})
			if err == nil || errors.Is(err, ErrNoFit) != tc.noFit || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.One(ctx, Ask{Claims: []*resourceapi.ResourceClaim{fleettest.Claim("it", vfs(2))}}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoFit) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWhatIsRememberedChangesWithTheWorld(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"))
	if got := w.ask(gpus(8)); !strings.HasPrefix(got, "a: ") {
		t.Error(got)
	}
	used := w.use("a", "gpu-7")
	if got := w.ask(gpus(8)); !strings.HasPrefix(got, "error: ") {
		t.Error(got)
	}
	w.DeleteClaim(used.UID)
	if got := w.ask(gpus(8)); !strings.HasPrefix(got, "a: ") {
		t.Error(got)
	}
	class := fleettest.Class(fleettest.ClassGPU, "vf", true)
	class.ResourceVersion = "2"
	w.SetClass(class)
	if got := w.ask(gpus(1)); got != "a: vf-0-0" {
		t.Errorf("the class means VFs now: %s", got)
	}
}

// TestManyAskAtOnce is for the race detector, and for what a caller does whose
// choice somebody else was quicker to take.
func TestManyAskAtOnce(t *testing.T) {
	w := newWorld(t, fleettest.DGX("a"), fleettest.DGX("b"))
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			c := fleettest.Claim(fmt.Sprint("claim-", i), gpus(1))
			for {
				choice, err := w.One(t.Context(), Ask{Claims: []*resourceapi.ResourceClaim{c}})
				if err != nil {
					t.Error(err)
					return
				}
				if err = w.Assume(c.UID, &choice.Allocation); err == nil {
					return
				} else if !errors.Is(err, fleet.ErrTaken) {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if got := w.ask(gpus(1)); !strings.HasPrefix(got, "error: nothing fits") {
		t.Errorf("16 GPUs are given, and there is one more: %s", got)
	}
}

func TestWhatDependsOnTheMachine(t *testing.T) {
	f := newOwnFinder()
	for expression, want := range map[string]bool{
		`device.driver == "x"`:                                                       false,
		`device.attributes["eks-hybrid-dra"].type == "gpu"`:                          false,
		`device.attributes['eks-hybrid-dra'].?allocator.orValue("") == "controller"`: false,
		`device.attributes["eks-hybrid-dra"]["index"] > 3 && device.capacity["eks-hybrid-dra"].memory > quantity("1Gi")`:  false,
		`"index" in device.attributes["eks-hybrid-dra"]`:                                                                  false,
		`has(device.attributes["eks-hybrid-dra"].index) && device.attributes["eks-hybrid-dra"].device == "101e"`:          false,
		`device.attributes["eks-hybrid-dra"].uuid == "x"`:                                                                 true,
		`"uuid" in device.attributes["eks-hybrid-dra"]`:                                                                   true,
		`device.attributes["eks-hybrid-dra"]["uuid"] == "x"`:                                                              true,
		`device.attributes["eks-hybrid-dra"].?uuid.hasValue()`:                                                            true,
		`device.attributes["eks-hybrid-dra"].exists(k, k == "x")`:                                                         true,
		`device.attributes["eks-hybrid-dra"]["uu" + "id"] == "x"`:                                                         true,
		`cel.bind(d, device.attributes["eks-hybrid-dra"], d.index == 1)`:                                                  true,
		`"device.attributes[" + device.driver + "].b" == "x" && device.attributes["eks-hybrid-dra"].map(k, k).size() > 1`: true,
		`device.attributes[device.driver].uuid == "x"`:                                                                    true,
		`[device].all(d, d.attributes["eks-hybrid-dra"].uuid == "x")`:                                                     true,
	} {
		if got := f.in(expression); got != want {
			t.Errorf("%s: %v", expression, got)
		}
	}
}
