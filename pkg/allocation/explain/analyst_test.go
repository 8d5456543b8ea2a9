package explain

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

const driver = "eks-hybrid-dra"

// machine is a node with 4 GPUs, two on each NUMA node, and each GPU also as a
// composite with the VF beside it.
type machine struct {
	name    string
	managed bool
	// taken and ill are names of devices.
	taken, ill []string
	settling   bool
	labels     map[string]string
}

func (m machine) slices() []*resourceapi.ResourceSlice {
	spec := resourceapi.ResourceSliceSpec{
		Driver: driver, NodeName: ptr.To(m.name),
		Pool: resourceapi.ResourcePool{Name: m.name + "/" + driver, Generation: 1, ResourceSliceCount: 2},
	}
	counters, devices := spec, spec
	for i := range 4 {
		counters.SharedCounters = append(counters.SharedCounters, resourceapi.CounterSet{
			Name: fmt.Sprintf("gpu-%d", i), Counters: map[string]resourceapi.Counter{"whole": {Value: resource.MustParse("1")}},
		})
		devices.Devices = append(devices.Devices, m.device(fmt.Sprintf("gpu-%d", i), "gpu", i))
	}
	for i := range 4 {
		devices.Devices = append(devices.Devices, m.device(fmt.Sprintf("gpu-%d-vf", i), "gpu-vf", i))
	}
	return []*resourceapi.ResourceSlice{
		{ObjectMeta: metav1.ObjectMeta{Name: m.name + "-0"}, Spec: counters},
		{ObjectMeta: metav1.ObjectMeta{Name: m.name + "-1"}, Spec: devices},
	}
}

func (m machine) device(name, kind string, i int) resourceapi.Device {
	d := resourceapi.Device{
		Name: name,
		Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			"type": {StringValue: &kind}, "index": {IntValue: ptr.To(int64(i))},
			"resource.kubernetes.io/numaNode": {IntValue: ptr.To(int64(i / 2))},
		},
		Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: resource.MustParse("80Gi")}},
		ConsumesCounters: []resourceapi.DeviceCounterConsumption{{
			CounterSet: fmt.Sprintf("gpu-%d", i), Counters: map[string]resourceapi.Counter{"whole": {Value: resource.MustParse("1")}},
		}},
	}
	taint := func(key, value string) {
		d.Taints = append(d.Taints, resourceapi.DeviceTaint{Key: key, Value: value, Effect: resourceapi.DeviceTaintEffectNoSchedule})
	}
	switch {
	case m.settling:
		taint(v1alpha1.TaintManaged, v1alpha1.ManagedSettling)
	case m.managed:
		taint(v1alpha1.TaintManaged, v1alpha1.ManagedByController)
		d.Attributes["allocator"] = resourceapi.DeviceAttribute{StringValue: ptr.To("controller")}
	}
	for _, ill := range m.ill {
		if ill == name {
			taint(v1alpha1.TaintUnhealthy, "XidError")
		}
	}
	return d
}

func deviceClass(name, driver, kind string, managed bool) *resourceapi.DeviceClass {
	c := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: 1}}
	expression := "device.driver == '" + driver + "'"
	if kind != "" {
		expression += " && device.attributes['" + driver + "'].type == '" + kind + "'"
	}
	if managed {
		c.Labels = map[string]string{v1alpha1.LabelManagedClass: "true"}
		expression += " && device.attributes['" + driver + "'].?allocator.orValue('') == 'controller'"
	}
	c.Spec.Selectors = []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: expression}}}
	return c
}

func fleetOf(machines ...machine) *fleet.Fleet {
	f := fleet.New(driver)
	for _, c := range []*resourceapi.DeviceClass{
		deviceClass("gpu", driver, "gpu", false), deviceClass("gpu-vf", driver, "gpu-vf", false), deviceClass("nic", "nic.example.com", "", false),
		deviceClass("managed-gpu", driver, "gpu", true), deviceClass("managed-gpu-vf", driver, "gpu-vf", true),
	} {
		f.SetClass(c)
	}
	for _, m := range machines {
		f.SetNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.name, Labels: m.labels}})
		for _, s := range m.slices() {
			f.SetSlice(s)
		}
		for _, d := range m.taken {
			f.SetClaim(&resourceapi.ResourceClaim{
				ObjectMeta: metav1.ObjectMeta{Name: m.name + d, UID: types.UID(m.name + d)},
				Status: resourceapi.ResourceClaimStatus{Allocation: &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{
					Results: []resourceapi.DeviceRequestAllocationResult{{Request: "r", Driver: driver, Pool: m.name + "/" + driver, Device: d}},
				}}},
			})
		}
	}
	return f
}

// ask is one request. Selectors are CEL.
func ask(name, class string, count int64, selectors ...string) resourceapi.DeviceRequest {
	e := &resourceapi.ExactDeviceRequest{DeviceClassName: class, Count: count, AllocationMode: resourceapi.DeviceAllocationModeExactCount}
	if count == 0 {
		e.AllocationMode = resourceapi.DeviceAllocationModeAll
	}
	for _, s := range selectors {
		e.Selectors = append(e.Selectors, resourceapi.DeviceSelector{CEL: &resourceapi.CELDeviceSelector{Expression: s}})
	}
	return resourceapi.DeviceRequest{Name: name, Exactly: e}
}

func claimOf(requests ...resourceapi.DeviceRequest) *resourceapi.ResourceClaim {
	return &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "c"},
		Spec:       resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: requests}},
	}
}

func sameNUMA(c *resourceapi.ResourceClaim, requests ...string) *resourceapi.ResourceClaim {
	c.Spec.Devices.Constraints = append(c.Spec.Devices.Constraints, resourceapi.DeviceConstraint{
		MatchAttribute: ptr.To[resourceapi.FullyQualifiedName]("resource.kubernetes.io/numaNode"), Requests: requests,
	})
	return c
}

func labelled(c *resourceapi.ResourceClaim, labels map[string]string) *resourceapi.ResourceClaim {
	c.Labels = labels
	return c
}

func annotated(c *resourceapi.ResourceClaim, key string) *resourceapi.ResourceClaim {
	c.Annotations = map[string]string{key: "now"}
	return c
}

func pod(change func(*corev1.Pod)) consumers.Consumers {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "train-0"}}
	if change != nil {
		change(p)
	}
	return consumers.Consumers{Pods: []*corev1.Pod{p}}
}

func onNode(name string) consumers.Consumers {
	return pod(func(p *corev1.Pod) { p.Spec.NodeName = name })
}

func both(a, b consumers.Consumers) consumers.Consumers {
	return consumers.Consumers{Pods: append(a.Pods, b.Pods...)}
}

func TestExplain(t *testing.T) {
	nobody, somebody := consumers.Consumers{}, pod(nil)
	busy := machine{name: "dgx-0", taken: []string{"gpu-0", "gpu-1", "gpu-2"}}
	two := []machine{busy, {name: "dgx-1", taken: []string{"gpu-0", "gpu-2"}}}
	onPool := pod(func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"pool": "a"} })
	for name, test := range map[string]struct {
		fleet  []machine
		claim  *resourceapi.ResourceClaim
		pods   consumers.Consumers
		reason string
		text   string
	}{
		"busy": {two, claimOf(ask("gpus", "gpu", 4)), somebody, ReasonWaiting,
			"Request gpus needs 4 devices on one node, and dgx-1, which has most, has 2 free. " +
				"2 nodes publish devices of eks-hybrid-dra. Request gpus: 8 devices match class gpu, 3 are free."},
		"nothing free": {[]machine{{name: "dgx-0", taken: []string{"gpu-0-vf", "gpu-1", "gpu-2", "gpu-3"}}}, claimOf(ask("gpus", "gpu", 1)), somebody, ReasonWaiting,
			"Request gpus needs 1 device on one node, and no device is free. " +
				"1 node publishes devices of eks-hybrid-dra. Request gpus: 4 devices match class gpu, 0 are free."},
		"more than a machine has": {two, claimOf(ask("gpus", "gpu", 8)), somebody, ReasonImpossible,
			"Request gpus needs 8 devices on one node, and no node has that, even if all devices were free (dgx-0 has 4). " +
				"2 nodes publish devices of eks-hybrid-dra. Request gpus: 8 devices match class gpu, 3 are free."},
		"selectors": {two, claimOf(ask("gpus", "gpu", 1, "device.attributes['eks-hybrid-dra'].index < 3", "device.capacity['eks-hybrid-dra'].memory.isGreaterThan(quantity('100Gi'))")), somebody, ReasonImpossible,
			"Request gpus needs 1 device on one node, and no node has that, even if all devices were free. 2 nodes publish devices of eks-hybrid-dra. " +
				"Request gpus: 8 devices match class gpu, 6 after selector 1 (device.attributes['eks-hybrid-dra'].index < 3), " +
				"0 after selector 2 (device.capacity['eks-hybrid-dra'].memory.isGreaterThan(quan…), 0 are free."},
		"a selector that fails": {two, claimOf(ask("gpus", "gpu", 1, "device.attributes['eks-hybrid-dra'].color == 'red'")), somebody, ReasonImpossible,
			"Request gpus: selector 1 fails for device gpu-3: device.attributes['eks-hybrid-dra'].color == 'red': no such key: color. " +
				"Such a claim is not allocated at all: make a new one whose selector asks first whether the attribute is there. 2 nodes publish devices of eks-hybrid-dra."},
		"two requests that no machine has": {[]machine{{name: "dgx-0", taken: []string{"gpu-0"}}}, claimOf(ask("a", "gpu", 4), ask("b", "gpu", 1)), somebody, ReasonImpossible,
			"Request a needs 4 devices on one node, and dgx-0, which has most, has 3 free. It would fit nowhere even if all devices were free. " +
				"1 node publishes devices of eks-hybrid-dra. Request a: 4 devices match class gpu, 3 are free. Request b: 4 devices match class gpu, 3 are free."},
		"two requests that a machine has": {[]machine{{name: "dgx-0", taken: []string{"gpu-0", "gpu-1"}}}, claimOf(ask("a", "gpu", 3), ask("b", "gpu", 1)), somebody, ReasonWaiting,
			"Request a needs 3 devices on one node, and dgx-0, which has most, has 2 free. " +
				"1 node publishes devices of eks-hybrid-dra. Request a: 4 devices match class gpu, 2 are free. Request b: 4 devices match class gpu, 2 are free."},
		"two requests, and what is ill may get well": {[]machine{{name: "dgx-0", ill: []string{"gpu-1"}}}, claimOf(ask("a", "gpu", 3), ask("b", "gpu", 4)), somebody, ReasonWaiting,
			"Request b needs 4 devices on one node, and dgx-0, which has most, has 3 free. " +
				"1 node publishes devices of eks-hybrid-dra. Request a: 4 devices match class gpu, 1 is tainted (XidError), 3 are free. Request b: 4 devices match class gpu, 1 is tainted (XidError), 3 are free."},
		"managed, a selector that fails, and enough": {[]machine{{name: "dgx-0", managed: true}},
			claimOf(ask("gpus", "managed-gpu", 1, "device.attributes['eks-hybrid-dra'].index < 2 || device.attributes['eks-hybrid-dra'].color == 'red'")), nobody, ReasonWaiting,
			"Each request alone has enough free devices, but whether some fit together cannot be told of a claim with a selector that fails. 1 node publishes devices of eks-hybrid-dra. " +
				"Request gpus: 4 devices match class managed-gpu, 2 after selector (device.attributes['eks-hybrid-dra'].index < 2 || device.att…), 2 are free. " +
				"Devices for which a selector fails are not given: selector 1 fails for device gpu-3: device.attributes['eks-hybrid-dra'].index < 2 || device.att…: no such key: color."},
		"a class of ours that is missing": {two, claimOf(ask("gpus", "manged-gpu."+driver, 1)), nobody, ReasonImpossible,
			`Request gpus names the DeviceClass "manged-gpu.eks-hybrid-dra", which does not exist: create it, or name another one in a new claim.`},
		"managed, a selector that fails for some": {[]machine{{name: "dgx-0", managed: true, taken: []string{"gpu-0", "gpu-1"}}},
			claimOf(ask("gpus", "managed-gpu", 1, "device.attributes['eks-hybrid-dra'].index < 2 || device.attributes['eks-hybrid-dra'].color == 'red'")), nobody, ReasonWaiting,
			"Request gpus needs 1 device on one node, and no device is free. 1 node publishes devices of eks-hybrid-dra. " +
				"Request gpus: 4 devices match class managed-gpu, 2 after selector (device.attributes['eks-hybrid-dra'].index < 2 || device.att…), 0 are free. " +
				"Devices for which a selector fails are not given: selector 1 fails for device gpu-3: device.attributes['eks-hybrid-dra'].index < 2 || device.att…: no such key: color."},
		"managed, a selector that fails for all": {[]machine{{name: "dgx-0", managed: true}},
			claimOf(ask("gpus", "managed-gpu", 1, "device.attributes['eks-hybrid-dra'].color == 'red'")), nobody, ReasonImpossible,
			"Request gpus needs 1 device on one node, and no node has that, even if all devices were free. 1 node publishes devices of eks-hybrid-dra. " +
				"Request gpus: 4 devices match class managed-gpu, 0 after selector (device.attributes['eks-hybrid-dra'].color == 'red'), 0 are free. " +
				"Devices for which a selector fails are not given: selector 1 fails for device gpu-3: device.attributes['eks-hybrid-dra'].color == 'red': no such key: color."},
		"no class": {two, claimOf(ask("gpus", "gpuu", 1), ask("more", "gpu", 1)), somebody, ReasonImpossible,
			`Request gpus names the DeviceClass "gpuu", which does not exist: create it, or name another one in a new claim. ` +
				"2 nodes publish devices of eks-hybrid-dra. Request more: 8 devices match class gpu, 3 are free."},
		"unhealthy": {[]machine{{name: "dgx-0", ill: []string{"gpu-1", "gpu-2"}}}, claimOf(ask("gpus", "gpu", 4)), somebody, ReasonWaiting,
			"Request gpus needs 4 devices on one node, and dgx-0, which has most, has 2 free. " +
				"1 node publishes devices of eks-hybrid-dra. Request gpus: 4 devices match class gpu, 2 are tainted (XidError), 2 are free."},
		"all devices of a node": {two, claimOf(ask("gpus", "gpu", 0)), somebody, ReasonWaiting,
			"Request gpus needs all devices that match on a node, and nowhere are all free. " +
				"2 nodes publish devices of eks-hybrid-dra. Request gpus: 8 devices match class gpu, 3 are free."},
		"the pod fits one node only": {[]machine{busy, {name: "dgx-1", labels: map[string]string{"pool": "a"}, taken: []string{"gpu-0"}}, {name: "dgx-2"}}, claimOf(ask("gpus", "gpu", 4)), onPool, ReasonWaiting,
			"Request gpus needs 4 devices on one node, and dgx-1, which has most, has 3 free. " +
				"3 nodes publish devices of eks-hybrid-dra, and 1 of them fits the claim's pods (not dgx-0: pod train-0 has a nodeSelector or node affinity that the node's labels do not fit). " +
				"Request gpus: 4 devices match class gpu, 3 are free."},
		"the pod fits no node": {two, claimOf(ask("gpus", "gpu", 1)), onPool, ReasonWaiting,
			"The claim's pods fit on none of the nodes that have devices of eks-hybrid-dra. " +
				"2 nodes publish devices of eks-hybrid-dra: on 2, such as dgx-0, pod train-0 has a nodeSelector or node affinity that the node's labels do not fit."},
		"the pod fits no node, each for another reason": {two, claimOf(ask("gpus", "gpu", 1), ask("nic", "nic", 1)), both(onNode("dgx-0"), onNode("dgx-1")), ReasonWaiting,
			"The claim's pods fit on none of the nodes that have devices of eks-hybrid-dra. " +
				"2 nodes publish devices of eks-hybrid-dra: on dgx-0, pod train-0 is on node dgx-1; on dgx-1, pod train-0 is on node dgx-0. " +
				"Request nic is of class nic, of another driver."},
		"no machine": {nil, claimOf(ask("gpus", "gpu", 1)), somebody, ReasonImpossible,
			"No node publishes devices of eks-hybrid-dra: see whether the kubelet plugin runs on the GPU nodes. Request gpus: 0 devices match class gpu, 0 are free."},
		"a constraint": {two[1:], sameNUMA(claimOf(ask("gpus", "gpu", 2)), "gpus"), somebody, ReasonWaiting,
			"On dgx-1 the claim would fit now but for the constraint that the devices of request gpus have the same resource.kubernetes.io/numaNode. " +
				"1 node publishes devices of eks-hybrid-dra. Request gpus: 4 devices match class gpu, 2 are free."},
		"a constraint that never holds": {[]machine{{name: "dgx-0"}}, sameNUMA(claimOf(ask("gpus", "gpu", 2), ask("pairs", "gpu-vf", 1))), somebody, ReasonImpossible,
			"On dgx-0 the claim would fit now but for the constraint that the devices of all requests have the same resource.kubernetes.io/numaNode. It would fit nowhere even if all devices were free. " +
				"1 node publishes devices of eks-hybrid-dra. Request gpus: 4 devices match class gpu, 4 are free. Request pairs: 4 devices match class gpu-vf, 4 are free."},
		"the same hardware twice": {[]machine{{name: "dgx-0", taken: []string{"gpu-3"}}}, claimOf(ask("gpus", "gpu", 2), ask("pairs", "gpu-vf", 2)), somebody, ReasonWaiting,
			"Each request alone has enough free devices on some node, but no node has enough for all of them at once: devices that consist of the same hardware, or share some, are not given together. " +
				"1 node publishes devices of eks-hybrid-dra. Request gpus: 4 devices match class gpu, 3 are free. Request pairs: 4 devices match class gpu-vf, 3 are free."},
		"devices are there": {two, claimOf(ask("gpus", "gpu", 2)), somebody, ReasonWaiting,
			"Enough devices are free, for instance on dgx-1; what else keeps pod train-0 from that node is told in the pod's events. " +
				"2 nodes publish devices of eks-hybrid-dra. Request gpus: 8 devices match class gpu, 3 are free."},
		"with another driver": {two, claimOf(ask("gpus", "gpu", 2), ask("nic", "nic", 1)), somebody, ReasonWaiting,
			"Enough devices are free, for instance on dgx-1; what is missing are devices of other drivers, or a node that has both. " +
				"2 nodes publish devices of eks-hybrid-dra. Request gpus: 8 devices match class gpu, 3 are free. Request nic is of class nic, of another driver."},
		"nobody asks": {two, claimOf(ask("gpus", "gpu", 1)), nobody, ReasonUnasked,
			"No pod uses this claim: kube-scheduler allocates a claim only when it schedules a pod that lists it in spec.resourceClaims."},
		"scheduling gates": {two, claimOf(ask("gpus", "gpu", 1)), pod(func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "quota"}} }), ReasonUnasked,
			"Its pod train-0 has scheduling gates: kube-scheduler allocates the claim once they are gone."},
		"managed, nobody asks": {[]machine{{name: "dgx-0", managed: true, taken: []string{"gpu-0"}}}, claimOf(ask("gpus", "managed-gpu", 4)), nobody, ReasonWaiting,
			"Request gpus needs 4 devices on one node, and dgx-0, which has most, has 3 free. " +
				"1 node publishes devices of eks-hybrid-dra. Request gpus: 4 devices match class managed-gpu, 3 are free."},
		"managed, freed because nobody used it": {[]machine{{name: "dgx-0", managed: true}}, annotated(claimOf(ask("gpus", "managed-gpu", 1)), claimwrite.AnnotationFreedUnused), nobody, ReasonUnasked,
			"The devices of this claim were freed because no pod used them: the controller allocates it again once a pod lists it in spec.resourceClaims."},
		"plain, settling": {[]machine{{name: "dgx-0", settling: true}}, claimOf(ask("gpus", "gpu", 1)), somebody, ReasonWaiting,
			"Request gpus needs 1 device on one node, and nobody may give away devices that are settling. 1 node publishes devices of eks-hybrid-dra. " +
				"Request gpus: 4 devices match class gpu, 4 are settling, that is changing hands between kube-scheduler and the controller, 0 are free."},
		"managed, settling": {[]machine{{name: "dgx-0", settling: true}, {name: "dgx-1", managed: true, taken: []string{"gpu-0", "gpu-1"}}}, claimOf(ask("gpus", "managed-gpu", 4)), nobody, ReasonWaiting,
			"Request gpus needs 4 devices on one node, and dgx-1, which has most, has 2 free. 2 nodes publish devices of eks-hybrid-dra. " +
				"Request gpus: 4 devices match class managed-gpu, 4 are settling, that is changing hands between kube-scheduler and the controller, 2 are free."},
		"plain, on managed machines": {[]machine{{name: "dgx-0", managed: true}}, claimOf(ask("gpus", "gpu", 1)), somebody, ReasonImpossible,
			"Request gpus needs 1 device on one node, and no node has that, even if all devices were free. 1 node publishes devices of eks-hybrid-dra. " +
				"Request gpus: 4 devices match class gpu, 4 are for claims of the other kind of class (managed or not), 0 are free."},
		"managed, but no devices are": {two, claimOf(ask("gpus", "managed-gpu", 1)), nobody, ReasonImpossible,
			"No node has devices that the controller gives away: section managed of the nodes' configuration says which these are, and Kubernetes 1.36 or later keeps the taint that marks them. " +
				"2 nodes publish devices of eks-hybrid-dra. Request gpus: 0 devices match class managed-gpu, 0 are free."},
		"mixed": {two, claimOf(ask("gpus", "managed-gpu", 1), ask("more", "gpu", 1)), somebody, ReasonImpossible,
			"Nobody allocates this claim: the class of request gpus is managed by the controller and that of request more is not. " +
				"Use managed classes for all requests or for none, or make two claims."},
		"gang": {[]machine{{name: "dgx-0", managed: true}}, labelled(claimOf(ask("gpus", "managed-gpu", 4)), map[string]string{v1alpha1.LabelGang: "train", v1alpha1.LabelGangSize: "16"}), nobody, ReasonWaiting,
			"Enough devices are free, for instance on dgx-0; the controller allocates the claim once its gang is complete and has room for all, unless an event of the claim says what is wrong with the gang. " +
				`1 node publishes devices of eks-hybrid-dra. Request gpus: 4 devices match class managed-gpu, 4 are free. All 16 claims of the gang "train" are allocated together.`},
		"managed, and enough": {[]machine{{name: "dgx-0", managed: true}}, claimOf(ask("gpus", "managed-gpu", 4)), nobody, ReasonWaiting,
			"Enough devices are free, for instance on dgx-0; the controller allocates the claim in a moment, unless it waits for other claims of its pod or for a while after a failure. " +
				"1 node publishes devices of eks-hybrid-dra. Request gpus: 4 devices match class managed-gpu, 4 are free."},
		"gang without a size": {[]machine{{name: "dgx-0", managed: true}}, labelled(claimOf(ask("gpus", "managed-gpu", 4)), map[string]string{v1alpha1.LabelGang: "train"}), nobody, ReasonImpossible,
			`The gang "train" of this claim is not allocated: the claim has no label eks-hybrid-dra/gang-size; set it to the number of the gang's claims, such as 16, the same on all of them.`},
		"gang of more than a number can say": {[]machine{{name: "dgx-0", managed: true}}, labelled(claimOf(ask("gpus", "managed-gpu", 4)), map[string]string{v1alpha1.LabelGang: "train", v1alpha1.LabelGangSize: "99999999999999999999"}), nobody, ReasonImpossible,
			`The gang "train" of this claim is not allocated: the claim's label eks-hybrid-dra/gang-size is "99999999999999999999"; set it to the number of the gang's claims, such as 16, the same on all of them.`},
		"gang with a timeout that means nothing": {[]machine{{name: "dgx-0", managed: true}}, labelled(claimOf(ask("gpus", "managed-gpu", 4)), map[string]string{v1alpha1.LabelGang: "train", v1alpha1.LabelGangSize: "2", v1alpha1.LabelGangTimeout: "soon"}), nobody, ReasonImpossible,
			`The gang "train" of this claim is not allocated: the claim's label eks-hybrid-dra/gang-timeout is "soon"; set it to a duration above zero, such as 5m, or remove it, on all of the gang's claims.`},
		"alternatives": {two, claimOf(resourceapi.DeviceRequest{Name: "gpus", FirstAvailable: []resourceapi.DeviceSubRequest{
			{Name: "four", DeviceClassName: "gpu", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 4},
			{Name: "three", DeviceClassName: "gpu", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 3},
		}}), somebody, ReasonWaiting,
			"Alternative gpus/four needs 4 devices on one node, and dgx-1, which has most, has 2 free. 2 nodes publish devices of eks-hybrid-dra. " +
				"Alternative gpus/four: 8 devices match class gpu, 3 are free. Alternative gpus/three: 8 devices match class gpu, 3 are free."},
	} {
		t.Run(name, func(t *testing.T) {
			f := fleetOf(test.fleet...)
			a := NewAnalyst(driver)
			a.tryTime = time.Minute // for machines that are busy
			got := a.Explain(t.Context(), test.claim, f.View(), test.pods)
			if diff := cmp.Diff(Explanation{test.reason, test.text}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestExplanationFitsIntoAnEvent(t *testing.T) {
	var requests []resourceapi.DeviceRequest
	for i := range 32 {
		requests = append(requests, ask(fmt.Sprintf("request-%d", i), "gpu", 4, strings.Repeat("true && ", 30)+"true"))
	}
	got := NewAnalyst(driver).Explain(t.Context(), claimOf(requests...), fleetOf(machine{name: "dgx-0", taken: []string{"gpu-0"}}).View(), pod(nil))
	if len(got.Text) > 1024 || !strings.HasSuffix(got.Text, " …") {
		t.Errorf("%d bytes: %s", len(got.Text), got.Text)
	}
}

func TestExplainEndsWithItsTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got := NewAnalyst(driver).Explain(ctx, claimOf(ask("gpus", "gpu", 1)), fleetOf(machine{name: "dgx-0"}).View(), pod(nil))
	if got.Reason != ReasonWaiting || !strings.Contains(got.Text, "too many different devices") {
		t.Errorf("got %+v", got)
	}
}

// What the allocator did not find in time may be there all the same.
func TestNothingIsSaidToFitNowhereBecauseTheAllocatorIsSlow(t *testing.T) {
	a := NewAnalyst(driver)
	a.tryTime = time.Nanosecond
	for name, test := range map[string]struct {
		taken []string
		claim *resourceapi.ResourceClaim
		want  string
	}{
		"enough is free": {nil, sameNUMA(claimOf(ask("gpus", "gpu", 2), ask("pairs", "gpu-vf", 1)), "gpus"), "takes too long"},
		"too little is":  {[]string{"gpu-0"}, claimOf(ask("a", "gpu", 4), ask("b", "gpu", 1)), "has 3 free"},
	} {
		t.Run(name, func(t *testing.T) {
			got := a.Explain(t.Context(), test.claim, fleetOf(machine{name: "dgx-0", taken: test.taken}).View(), pod(nil))
			if got.Reason != ReasonWaiting || !strings.Contains(got.Text, test.want) || strings.Contains(got.Text, "nowhere") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestOurs(t *testing.T) {
	view := fleetOf().View()
	a := NewAnalyst(driver)
	for class, want := range map[string]bool{"gpu": true, "managed-gpu": true, "nic": false, "missing": false, "missing." + driver: true} {
		if got := a.Ours(claimOf(ask("r", class, 1)), view); got != want {
			t.Errorf("a claim of class %s is ours: %v, want %v", class, got, want)
		}
	}
}
