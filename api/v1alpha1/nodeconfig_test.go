package v1alpha1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const nodeHead = "apiVersion: resource.eks-hybrid-dra/v1alpha1\nkind: NodeConfig\n"

func nodeConfig(selectors ...VFSelector) *NodeConfig {
	return &NodeConfig{
		TypeMeta: metav1.TypeMeta{APIVersion: "resource.eks-hybrid-dra/v1alpha1", Kind: "NodeConfig"},
		SRIOV:    SRIOVConfig{Selectors: selectors},
		Pairing:  PairingConfig{LeastAlignment: "NODE"},
		Managed:  ManagedConfig{Settle: "30s"},

		DevicePlugin: defaultDevicePlugin(),
	}
}

func defaultDevicePlugin() DevicePluginConfig {
	return DevicePluginConfig{Mode: "cdi", GPUResource: "nvidia.com/gpu", Settle: "30s"}
}

func TestDecodeNodeConfig(t *testing.T) {
	for name, test := range map[string]struct {
		raw  string
		want *NodeConfig
	}{
		"empty": {nodeHead, nodeConfig()},
		"JSON":  {`{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"NodeConfig","sriov":{"selectors":[{"rdma":true}]}}`, nodeConfig(VFSelector{RDMA: ptr.To(true)})},
		"everything": {
			"# our DGX\n---\n" + nodeHead + `
sriov:
  selectors:
  - vendors: ["15B3"]
    devices: [101e]
    drivers: [mlx5_core]
    pfNames: ["ibp24s0#0-3,5", ibp41s0]
    rootDevices: ["0000:9A:00.0#1"]
    pciAddresses: ["0000:18:00.1"]
    linkTypes: [infiniband, ether]
    rdma: true
    numVFs: 8
    mtu: 4092
  - pfNames: [ens1f0]
    numVFs: 4
    externallyManaged: true
`,
			nodeConfig(VFSelector{
				Vendors: []string{"15b3"}, Devices: []string{"101e"}, Drivers: []string{"mlx5_core"},
				PFNames: []string{"ibp24s0#0-3,5", "ibp41s0"}, RootDevices: []string{"0000:9a:00.0#1"}, PCIAddresses: []string{"0000:18:00.1"},
				LinkTypes: []string{"infiniband", "ether"}, RDMA: ptr.To(true), NumVFs: ptr.To(8), MTU: ptr.To(4092),
			}, VFSelector{PFNames: []string{"ens1f0"}, NumVFs: ptr.To(4), ExternallyManaged: true}),
		},
		"pairs": {
			nodeHead + "pairing: {leastAlignment: PXB, pairs: [{gpu: '0000:1B:00.0', nic: '0000:18:00.0'}, {gpu: '0000:43:00.0'}]}\nnccl: {setIBHCA: true}",
			&NodeConfig{
				TypeMeta: nodeConfig().TypeMeta,
				Pairing:  PairingConfig{LeastAlignment: "PXB", Pairs: []GPUNICPair{{GPU: "0000:1b:00.0", NIC: "0000:18:00.0"}, {GPU: "0000:43:00.0"}}},
				NCCL:     NCCLConfig{SetIBHCA: true},
				Managed:  ManagedConfig{Settle: "30s"},

				DevicePlugin: defaultDevicePlugin(),
			},
		},
		"managed": {
			nodeHead + "managed: {kinds: [gpu-vf, gpu], nodeSelector: {example.com/allocator: controller, bare: ''}, settle: 1m30s}",
			&NodeConfig{
				TypeMeta: nodeConfig().TypeMeta,
				Pairing:  PairingConfig{LeastAlignment: "NODE"},
				Managed: ManagedConfig{
					Kinds: []string{"gpu-vf", "gpu"}, NodeSelector: map[string]string{"example.com/allocator": "controller", "bare": ""}, Settle: "1m30s",
				},
				DevicePlugin: defaultDevicePlugin(),
			},
		},
		"device plugin": {
			nodeHead + `devicePlugin:
  kinds: [gpu, vf]
  mode: envvar
  gpuResource: example.com/h200
  settle: 5s
  vfResources:
  - {name: nvidia.com/vfio, selectors: [{vendors: ["15B3"], drivers: [vfio-pci]}]}
  - {name: nvidia.com/vf}
`,
			&NodeConfig{
				TypeMeta: nodeConfig().TypeMeta,
				Pairing:  PairingConfig{LeastAlignment: "NODE"},
				Managed:  ManagedConfig{Settle: "30s"},
				DevicePlugin: DevicePluginConfig{
					Kinds: []string{"gpu", "vf"}, Mode: "envvar", GPUResource: "example.com/h200", Settle: "5s",
					VFResources: []VFResource{
						{Name: "nvidia.com/vfio", Selectors: []VFSelector{{Vendors: []string{"15b3"}, Drivers: []string{"vfio-pci"}}}},
						{Name: "nvidia.com/vf"},
					},
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeNodeConfig([]byte(test.raw))
			if err != nil {
				t.Fatalf("unexpected error: %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("unexpected configuration (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(got, got.DeepCopyObject()); diff != "" {
				t.Errorf("a copy differs (-original +copy):\n%s", diff)
			}
		})
	}
}

func TestNodeLabelsHaveDefaults(t *testing.T) {
	for raw, want := range map[string]*NodeLabelsConfig{
		"":                             nil,
		"nodeLabels: {}":               {GPU: "gpu", GPUCount: "gpu-count"},
		"nodeLabels: {enabled: true}":  {Enabled: true, GPU: "gpu", GPUCount: "gpu-count"},
		"nodeLabels: {gpu: a.b/model}": {GPU: "a.b/model", GPUCount: "gpu-count"},
	} {
		got, err := DecodeNodeConfig([]byte(nodeHead + raw))
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if diff := cmp.Diff(want, got.NodeLabels); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
}

func TestRefuseNodeConfig(t *testing.T) {
	one := func(fields string) string { return nodeHead + "sriov: {selectors: [{" + fields + "}]}" }
	for name, test := range map[string]struct {
		raw string
		// err lists what the admin must find in the error.
		err []string
	}{
		"nothing":         {"# nothing\n", []string{"no configuration given", "NodeConfig"}},
		"no YAML":         {"a: [", []string{"yaml"}},
		"two documents":   {nodeHead + "---\n" + nodeHead, []string{"more than one YAML document"}},
		"no version":      {"kind: NodeConfig", []string{"apiVersion is missing"}},
		"no kind":         {"apiVersion: resource.eks-hybrid-dra/v1alpha1", []string{"kind is missing: want NodeConfig"}},
		"a claim's kind":  {"apiVersion: resource.eks-hybrid-dra/v1alpha1\nkind: VfConfig", []string{`"VfConfig"`, "want", "NodeConfig"}},
		"unknown field":   {one("pfName: [a]"), []string{`unknown field "sriov.selectors[0].pfName"`}},
		"repeated field":  {nodeHead + "kind: NodeConfig", []string{`"kind"`}},
		"vendor":          {one(`vendors: ["0x15b3"]`), []string{`sriov.selectors[0].vendors[0]: Invalid value: "0x15b3"`, "15b3"}},
		"device":          {one(`devices: ["ConnectX"]`), []string{`sriov.selectors[0].devices[0]`}},
		"driver":          {one(`drivers: [""]`), []string{`sriov.selectors[0].drivers[0]`}},
		"address":         {one(`pciAddresses: ["18:00.1"]`), []string{`sriov.selectors[0].pciAddresses[0]`, "0000:18:00.1"}},
		"root device":     {one(`rootDevices: ["eth0"]`), []string{`sriov.selectors[0].rootDevices[0]`}},
		"link type":       {one(`linkTypes: [ib]`), []string{`sriov.selectors[0].linkTypes[0]: Unsupported value: "ib"`, "infiniband"}},
		"no PF name":      {one(`pfNames: ["#0"]`), []string{`sriov.selectors[0].pfNames[0]`}},
		"PF name":         {one(`pfNames: ["a b"]`), []string{`sriov.selectors[0].pfNames[0]`, `' '`}},
		"no range":        {one(`pfNames: ["a#"]`), []string{`sriov.selectors[0].pfNames[0]: Invalid value: "a#"`, "0-3,5"}},
		"range":           {one(`pfNames: ["a#0-x"]`), []string{`"0-x"`, "0-3,5"}},
		"range backwards": {one(`pfNames: ["a#3-1"]`), []string{`"3-1"`, "ends before it begins"}},
		"huge VF number":  {one(`pfNames: ["a#99999"]`), []string{`"99999"`, "less than 4096"}},
		"numVFs":          {one(`numVFs: -1`), []string{`sriov.selectors[0].numVFs: Invalid value: -1: want 0 to 4096`}},
		"VF that numVFs leaves out": {
			one(`numVFs: 4, pfNames: ["a#0-1", "b#2-4"]`),
			[]string{`sriov.selectors[0].pfNames[1]: Invalid value: "b#2-4"`, "contradicts numVFs", "with 4 VFs there is no VF 4"},
		},
		"two numbers for a PF": {
			nodeHead + "sriov: {selectors: [{pfNames: [a], numVFs: 4}, {pfNames: ['a#0'], numVFs: 8}]}",
			[]string{`sriov.selectors[1].numVFs: Invalid value: 8`, "sriov.selectors[0] gives a 4 VFs"},
		},
		"externally managed":  {one(`externallyManaged: true`), []string{`sriov.selectors[0].numVFs: Required`}},
		"alignment":           {nodeHead + "pairing: {leastAlignment: near}", []string{`pairing.leastAlignment: Unsupported value: "near"`, "PIX", "SYS"}},
		"pair without GPU":    {nodeHead + "pairing: {pairs: [{nic: '0000:18:00.0'}]}", []string{`pairing.pairs[0].gpu: Required value`}},
		"GPU of a pair":       {nodeHead + "pairing: {pairs: [{gpu: gpu-0}]}", []string{`pairing.pairs[0].gpu: Invalid value: "gpu-0"`, "0000:18:00.0"}},
		"NIC of a pair":       {nodeHead + "pairing: {pairs: [{gpu: '0000:1b:00.0', nic: mlx5_0}]}", []string{`pairing.pairs[0].nic: Invalid value: "mlx5_0"`}},
		"GPU in two pairs":    {nodeHead + "pairing: {pairs: [{gpu: '0000:1b:00.0'}, {gpu: '0000:1B:00.0', nic: '0000:18:00.0'}]}", []string{`pairing.pairs[1].gpu: Invalid value: "0000:1b:00.0": pairing.pairs[0] has decided`}},
		"mtu":                 {one(`mtu: 1`), []string{`sriov.selectors[0].mtu: Invalid value: 1`}},
		"managed kind":        {nodeHead + "managed: {kinds: [gpu, mig]}", []string{`managed.kinds[1]: Unsupported value: "mig"`, `"gpu", "gpu-vf", "vf"`}},
		"label of EKS":        {nodeHead + "nodeLabels: {enabled: true, gpuCount: eks.amazonaws.com/compute-type}", []string{`nodeLabels.gpuCount: Invalid value: "eks.amazonaws.com/compute-type"`, "the platform's"}},
		"label of Kubernetes": {nodeHead + "nodeLabels: {enabled: true, gpu: node-role.kubernetes.io/gpu}", []string{`nodeLabels.gpu: Invalid value: "node-role.kubernetes.io/gpu"`, "domain of your own"}},
		"label that is none":  {nodeHead + "nodeLabels: {gpuCount: 'a b'}", []string{`nodeLabels.gpuCount: Invalid value: "a b"`}},
		"one label for two":   {nodeHead + "nodeLabels: {gpuCount: gpu}", []string{`nodeLabels.gpuCount: Duplicate value: "gpu"`}},
		"managed kind twice":  {nodeHead + "managed: {kinds: [vf, vf]}", []string{`managed.kinds[1]: Duplicate value: "vf"`}},
		"label key":           {nodeHead + "managed: {kinds: [gpu], nodeSelector: {'a b': c}}", []string{`managed.nodeSelector: Invalid value: "a b"`}},
		"label value":         {nodeHead + "managed: {kinds: [gpu], nodeSelector: {a: 'b c'}}", []string{`managed.nodeSelector[a]: Invalid value: "b c"`}},
		"label expression":    {nodeHead + "managed: {kinds: [gpu], nodeSelector: {a: [b, c]}}", []string{"managed.nodeSelector"}},
		"no settling":         {nodeHead + "managed: {settle: 0s}", []string{`managed.settle: Invalid value: "0s": want 5s to 1h0m0s`, "same moment"}},
		"short settling":      {nodeHead + "managed: {settle: 4s}", []string{`managed.settle: Invalid value: "4s": want 5s to 1h0m0s`}},
		"long settling":       {nodeHead + "managed: {settle: 61m}", []string{`managed.settle: Invalid value: "61m": want 5s to 1h0m0s`}},
		"settling, no unit":   {nodeHead + "managed: {settle: '30'}", []string{`managed.settle: Invalid value: "30"`, "such as 30s"}},
		"device plugin kind":  {nodeHead + "devicePlugin: {kinds: [gpu-vf]}", []string{`devicePlugin.kinds[0]: Unsupported value: "gpu-vf"`, `"gpu", "vf"`}},
		"device plugin and managed": {
			nodeHead + "devicePlugin: {kinds: [gpu]}\nmanaged: {kinds: [gpu]}",
			[]string{`devicePlugin.kinds[0]: Invalid value: "gpu": managed.kinds gives the same devices to the controller`},
		},
		"device plugin and managed pairs": {
			nodeHead + "devicePlugin: {kinds: [gpu]}\nmanaged: {kinds: [gpu-vf]}",
			[]string{`devicePlugin.kinds[0]: Invalid value: "gpu": managed.kinds has gpu-vf`},
		},
		"device plugin mode":     {nodeHead + "devicePlugin: {mode: env}", []string{`devicePlugin.mode: Unsupported value: "env"`, `"cdi", "envvar"`}},
		"resource":               {nodeHead + "devicePlugin: {gpuResource: gpu}", []string{`devicePlugin.gpuResource: Invalid value: "gpu": want a domain and a name, such as nvidia.com/gpu`}},
		"resource of Kubernetes": {nodeHead + "devicePlugin: {gpuResource: kubernetes.io/gpu}", []string{`devicePlugin.gpuResource`, "Kubernetes' own"}},
		"resource by its end":    {nodeHead + "devicePlugin: {gpuResource: mykubernetes.io/gpu}", []string{`devicePlugin.gpuResource`, "Kubernetes' own"}},
		"resource below it":      {nodeHead + "devicePlugin: {gpuResource: node.kubernetes.io/gpu}", []string{`devicePlugin.gpuResource`, "Kubernetes' own"}},
		"device plugin, label":   {nodeHead + "devicePlugin: {nodeSelector: {a: 'b c'}}", []string{`devicePlugin.nodeSelector[a]: Invalid value: "b c"`}},
		"VFs without resource":   {nodeHead + "devicePlugin: {kinds: [vf]}", []string{`devicePlugin.vfResources: Required value: kinds has vf`}},
		"resource twice":         {nodeHead + "devicePlugin: {vfResources: [{name: a.b/c}, {name: a.b/c}]}", []string{`devicePlugin.vfResources[1].name: Duplicate value: "a.b/c"`}},
		"resource of GPUs":       {nodeHead + "devicePlugin: {vfResources: [{name: nvidia.com/gpu}]}", []string{`devicePlugin.vfResources[0].name: Duplicate value: "nvidia.com/gpu"`}},
		"number of VFs":          {nodeHead + "devicePlugin: {vfResources: [{name: a.b/c, selectors: [{numVFs: 8}]}]}", []string{`devicePlugin.vfResources[0].selectors[0].numVFs: Forbidden: it is about PFs: set it in sriov.selectors`}},
		"device plugin, settle":  {nodeHead + "devicePlugin: {settle: '5'}", []string{`devicePlugin.settle: Invalid value: "5"`, "such as 30s"}},
		"managed, misspelt":      {nodeHead + "managed: {kind: [gpu]}", []string{`unknown field "managed.kind"`}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeNodeConfig([]byte(test.raw))
			if err == nil {
				t.Fatalf("want an error with %q, got %+v", test.err, got)
			}
			for _, want := range test.err {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestNodeConfigCopySharesNothing(t *testing.T) {
	full := func() *NodeConfig {
		c := nodeConfig(VFSelector{
			Vendors: []string{"a"}, Devices: []string{"a"}, Drivers: []string{"a"}, PFNames: []string{"a"},
			RootDevices: []string{"a"}, PCIAddresses: []string{"a"}, LinkTypes: []string{"a"},
			RDMA: ptr.To(true), NumVFs: ptr.To(1), MTU: ptr.To(1),
		})
		c.Pairing.Pairs = []GPUNICPair{{GPU: "a", NIC: "a"}}
		c.Managed.Kinds, c.Managed.NodeSelector = []string{"a"}, map[string]string{"a": "a"}
		c.NodeLabels = &NodeLabelsConfig{GPU: "a"}
		c.DevicePlugin.Kinds, c.DevicePlugin.NodeSelector = []string{"a"}, map[string]string{"a": "a"}
		c.DevicePlugin.VFResources = []VFResource{{Name: "a", Selectors: []VFSelector{{Vendors: []string{"a"}}}}}
		return c
	}
	original := full()
	copied, ok := original.DeepCopyObject().(*NodeConfig)
	if !ok {
		t.Fatalf("the copy is a %T", original.DeepCopyObject())
	}
	s := &copied.SRIOV.Selectors[0]
	for _, list := range [][]string{s.Vendors, s.Devices, s.Drivers, s.PFNames, s.RootDevices, s.PCIAddresses, s.LinkTypes} {
		list[0] = "b"
	}
	*s.RDMA, *s.NumVFs, *s.MTU = false, 2, 2
	copied.Pairing.Pairs[0] = GPUNICPair{GPU: "b"}
	copied.Managed.Kinds[0], copied.Managed.NodeSelector["a"] = "b", "b"
	copied.DevicePlugin.Kinds[0], copied.DevicePlugin.VFResources[0].Selectors[0].Vendors[0] = "b", "b"
	copied.DevicePlugin.VFResources[0].Name, copied.DevicePlugin.NodeSelector["a"] = "b", "b"
	copied.NodeLabels.GPU = "b"
	if diff := cmp.Diff(full(), original); diff != "" {
		t.Errorf("changing the copy changed the original (-before +after):\n%s", diff)
	}
}

func FuzzDecodeNodeConfig(f *testing.F) {
	f.Add([]byte(nodeHead))
	f.Add([]byte(nodeHead + `sriov: {selectors: [{pfNames: ["a#0-3,5"], numVFs: 8, vendors: [15b3]}]}`))
	f.Add([]byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		config, err := DecodeNodeConfig(raw)
		if (config == nil) == (err == nil) {
			t.Fatalf("want either a configuration or an error, got %v and %v", config, err)
		}
	})
}
