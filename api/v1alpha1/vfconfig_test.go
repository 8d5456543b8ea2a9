package v1alpha1

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const vfHead = `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"VfConfig"`

func vfConfig(change func(*VfConfig)) *VfConfig {
	c := &VfConfig{TypeMeta: metav1.TypeMeta{APIVersion: "resource.eks-hybrid-dra/v1alpha1", Kind: "VfConfig"}, Mode: VfModeNetdevice}
	if change != nil {
		change(c)
	}
	return c
}

func TestDecodeVfConfig(t *testing.T) {
	for name, test := range map[string]struct {
		fields string
		want   *VfConfig
	}{
		"nothing": {"", DefaultVfConfig()},
		"interface": {
			`,"ifName":"net1","mac":"02:00:00:00:00:01","mtu":9000,"linkState":"auto"`,
			vfConfig(func(c *VfConfig) {
				c.IfName, c.MAC, c.MTU, c.LinkState = "net1", "02:00:00:00:00:01", ptr.To(9000), "auto"
			}),
		},
		"traffic": {
			`,"vlan":100,"qos":3,"trust":true,"spoofCheck":false,"minTxRate":100,"maxTxRate":0`,
			vfConfig(func(c *VfConfig) {
				c.VLAN, c.QoS, c.Proto, c.Trust, c.SpoofCheck = ptr.To(100), ptr.To(3), "802.1q", ptr.To(true), ptr.To(false)
				c.MinTxRate, c.MaxTxRate = ptr.To(100), ptr.To(0)
			}),
		},
		"no VLAN": {`,"vlan":0`, vfConfig(func(c *VfConfig) { c.VLAN = ptr.To(0) })},
		"addresses and routes": {
			`,"addresses":["192.168.10.5/24","fd00::5/64"],"routes":[{"destination":"10.0.0.0/8","gateway":"192.168.10.1","metric":5},{"destination":"fd01::/64"}]`,
			vfConfig(func(c *VfConfig) {
				c.Addresses = []string{"192.168.10.5/24", "fd00::5/64"}
				c.Routes = []VfRoute{{Destination: "10.0.0.0/8", Gateway: "192.168.10.1", Metric: 5}, {Destination: "fd01::/64"}}
			}),
		},
		"gateway on a route of its own": {
			`,"addresses":["192.168.10.5/32"],"routes":[{"destination":"192.168.10.1/32"},{"destination":"0.0.0.0/0","gateway":"192.168.10.1"}]`,
			vfConfig(func(c *VfConfig) {
				c.Addresses = []string{"192.168.10.5/32"}
				c.Routes = []VfRoute{{Destination: "192.168.10.1/32"}, {Destination: "0.0.0.0/0", Gateway: "192.168.10.1"}}
			}),
		},
		"IPAM": {
			`,"ipam": { "type": "host-local", "subnet":"10.1.0.0/16" },"routes":[{"destination":"0.0.0.0/0","gateway":"10.1.0.1"}]`,
			vfConfig(func(c *VfConfig) {
				c.IPAM = json.RawMessage(`{"type":"host-local","subnet":"10.1.0.0/16"}`)
				c.Routes = []VfRoute{{Destination: "0.0.0.0/0", Gateway: "10.1.0.1"}}
			}),
		},
		"NAD": {`,"netAttachDef":{"name":"fast.net","namespace":"infra"}`, vfConfig(func(c *VfConfig) { c.NetAttachDef = &NetAttachDef{"fast.net", "infra"} })},
		"vfio": {`,"mode":"vfio-pci","mac":"02:00:00:00:00:01","vlan":5`, vfConfig(func(c *VfConfig) {
			c.Mode, c.MAC, c.VLAN, c.Proto = VfModeVFIO, "02:00:00:00:00:01", ptr.To(5), "802.1q"
		})},
		"rdma":        {`,"mode":"rdma"`, vfConfig(func(c *VfConfig) { c.Mode = VfModeRDMA })},
		"empty lists": {`,"addresses":[],"routes":[],"ipam":null`, DefaultVfConfig()},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NewDecoder().Decode([]byte(vfHead + test.fields + `}`))
			if err != nil {
				t.Fatalf("unexpected error: %v", err)
			}
			if diff := cmp.Diff(Config(test.want), got); diff != "" {
				t.Errorf("unexpected configuration (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(got, got.DeepCopyObject()); diff != "" {
				t.Errorf("a copy differs (-original +copy):\n%s", diff)
			}
			sameAfterEncoding(t, got)
		})
	}
}

// sameAfterEncoding checks what the claim store relies on: a configuration that
// was written with json.Marshal is read back as it was.
func sameAfterEncoding(t *testing.T, config Config) {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	again, err := NewDecoder().Decode(raw)
	if err != nil {
		t.Fatalf("decode what was encoded, %s: %v", raw, err)
	}
	if diff := cmp.Diff(config, again); diff != "" {
		t.Errorf("not the same after encoding and decoding (-before +after):\n%s", diff)
	}
}

func TestRefuseVfConfig(t *testing.T) {
	const address = `"addresses":["192.168.10.5/24"],`
	for name, test := range map[string]struct {
		fields string
		// err lists what the user must find in the error.
		err []string
	}{
		"unknown field":            {`"vlna":5`, []string{`unknown field "vlna"`}},
		"unknown field of a route": {`"routes":[{"dest":"10.0.0.0/8"}]`, []string{`unknown field "routes[0].dest"`}},
		"mode":                     {`"mode":"dpdk"`, []string{`mode: Unsupported value: "dpdk"`, "netdevice", "rdma", "vfio-pci"}},
		"long ifName":              {`"ifName":"abcdefghijklmnop"`, []string{`ifName: Invalid value: "abcdefghijklmnop"`, "at most 15"}},
		"ifName with a slash":      {`"ifName":"a/b"`, []string{`ifName: Invalid value: "a/b"`, `'/'`}},
		"ifName with a blank":      {`"ifName":"a b"`, []string{`ifName`, `' '`}},
		"ifName is a pattern":      {`"ifName":"net%d"`, []string{`ifName`, `'%'`}},
		"ifName lo":                {`"ifName":"lo"`, []string{`ifName: Invalid value: "lo"`, "already"}},
		"ifName eth0":              {`"ifName":"eth0"`, []string{`ifName: Invalid value: "eth0"`, "net1"}},
		"ifName all":               {`"ifName":"all"`, []string{`ifName: Invalid value: "all"`}},
		"mac":                      {`"mac":"zz"`, []string{`mac: Invalid value: "zz": want six bytes`}},
		"long mac":                 {`"mac":"02:00:00:00:00:00:00:01"`, []string{`mac: Invalid value`, "six bytes"}},
		"multicast mac":            {`"mac":"01:00:5e:00:00:01"`, []string{`mac: Invalid value`, "group address"}},
		"zero mac":                 {`"mac":"00:00:00:00:00:00"`, []string{`mac: Invalid value`, "zero"}},
		"vlan":                     {`"vlan":4095`, []string{`vlan: Invalid value: 4095: want 0 to 4094`}},
		"qos":                      {`"vlan":1,"qos":8`, []string{`qos: Invalid value: 8: want 0 to 7`}},
		"qos alone":                {`"qos":3`, []string{`qos: Forbidden`, "set vlan"}},
		"proto":                    {`"vlan":1,"proto":"qinq"`, []string{`proto: Unsupported value: "qinq"`, "802.1ad"}},
		"proto alone":              {`"proto":"802.1ad","vlan":0`, []string{`proto: Forbidden`, "set vlan"}},
		"mtu":                      {`"mtu":10`, []string{`mtu: Invalid value: 10: want 68 to 65535`}},
		"mtu for IPv6":             {`"mtu":1000,"addresses":["fd00::5/64"]`, []string{`mtu: Invalid value: 1000`, "1280"}},
		"linkState":                {`"linkState":"up"`, []string{`linkState: Unsupported value: "up"`, "enable"}},
		"rates":                    {`"minTxRate":200,"maxTxRate":100`, []string{`minTxRate: Invalid value: 200`, "maxTxRate, 100"}},
		"rate":                     {`"maxTxRate":-1`, []string{`maxTxRate: Invalid value: -1`}},
		"address without a prefix": {`"addresses":["192.168.10.5"]`, []string{`addresses[0]: Invalid value: "192.168.10.5"`, "192.168.10.5/24"}},
		"same address twice":       {`"addresses":["192.168.10.5/24","192.168.10.5/16"]`, []string{`addresses[1]: Duplicate value`}},
		"network as address":       {`"addresses":["192.168.10.0/24"]`, []string{`addresses[0]`, "network itself"}},
		"broadcast as address":     {`"addresses":["192.168.10.255/24"]`, []string{`addresses[0]`, "broadcast"}},
		"loopback as address":      {`"addresses":["::1/128"]`, []string{`addresses[0]`, "no interface"}},
		"mapped address":           {`"addresses":["::ffff:10.0.0.1/120"]`, []string{`addresses[0]`, "want 10.0.0.1"}},
		"routes alone":             {`"routes":[{"destination":"10.0.0.0/8"}]`, []string{`routes: Forbidden`, "addresses or ipam"}},
		"route without a network":  {address + `"routes":[{"gateway":"192.168.10.1"}]`, []string{`routes[0].destination: Required`}},
		"route to a host in it":    {address + `"routes":[{"destination":"10.0.0.1/8"}]`, []string{`routes[0].destination`, "want 10.0.0.0/8"}},
		"route twice":              {address + `"routes":[{"destination":"10.0.0.0/8"},{"destination":"10.0.0.0/8"}]`, []string{`routes[1].destination: Duplicate`}},
		"route metric":             {address + `"routes":[{"destination":"10.0.0.0/8","metric":-1}]`, []string{`routes[0].metric: Invalid value: -1`}},
		"gateway":                  {address + `"routes":[{"destination":"10.0.0.0/8","gateway":"x"}]`, []string{`routes[0].gateway: Invalid value: "x"`}},
		"gateway of IPv6":          {address + `"routes":[{"destination":"10.0.0.0/8","gateway":"fe80::1"}]`, []string{`routes[0].gateway`, "same IP family", "10.0.0.0/8"}},
		"gateway out of reach":     {address + `"routes":[{"destination":"10.0.0.0/8","gateway":"172.16.0.1"}]`, []string{`routes[0].gateway`, "neighbour"}},
		"ipam no object":           {`"ipam":"host-local"`, []string{`ipam: Invalid value`, `{"type": "host-local"`}},
		"ipam without a type":      {`"ipam":{"subnet":"10.0.0.0/8"}`, []string{`ipam.type: Required`}},
		"ipam type is a path":      {`"ipam":{"type":"../sh"}`, []string{`ipam.type: Invalid value`}},
		"ipam type is a number":    {`"ipam":{"type":5}`, []string{`ipam.type: Invalid value`}},
		"ipam and addresses":       {address + `"ipam":{"type":"static"}`, []string{`ipam: Forbidden`, "keep one"}},
		"NAD without a name":       {`"netAttachDef":{}`, []string{`netAttachDef.name: Required`}},
		"NAD name":                 {`"netAttachDef":{"name":"a_b"}`, []string{`netAttachDef.name: Invalid value: "a_b"`}},
		"NAD namespace":            {`"netAttachDef":{"name":"a","namespace":"b.c"}`, []string{`netAttachDef.namespace: Invalid value: "b.c"`}},
		"NAD and addresses":        {address + `"netAttachDef":{"name":"a"}`, []string{`addresses: Forbidden`, "netAttachDef"}},
		"NAD and ipam":             {`"ipam":{"type":"static"},"netAttachDef":{"name":"a"}`, []string{`ipam: Forbidden`}},
		"vfio and what an interface has": {
			address + `"mode":"vfio-pci","ifName":"net1","mtu":1500,"routes":[{"destination":"10.0.0.0/8"}]`,
			[]string{`ifName: Forbidden: mode vfio-pci`, `mtu: Forbidden`, `addresses: Forbidden`, `routes: Forbidden`, "use mode netdevice"},
		},
		"rdma and NAD":  {`"mode":"rdma","netAttachDef":{"name":"a"}`, []string{`netAttachDef: Forbidden: mode rdma`}},
		"rdma and ipam": {`"mode":"rdma","ipam":{"type":"static"}`, []string{`ipam: Forbidden: mode rdma`}},
		"all at once":   {`"mac":"zz","vlan":9999`, []string{`mac: Invalid value`, `vlan: Invalid value`}},
		"NodeConfig is none": {
			`"sriov":{}`, []string{`unknown field "sriov"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NewDecoder().Decode([]byte(vfHead + `,` + test.fields + `}`))
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

func TestVfConfigCopySharesNothing(t *testing.T) {
	full := func() *VfConfig {
		return vfConfig(func(c *VfConfig) {
			c.VLAN, c.QoS, c.MTU, c.MinTxRate, c.MaxTxRate = ptr.To(1), ptr.To(1), ptr.To(1), ptr.To(1), ptr.To(1)
			c.Trust, c.SpoofCheck = ptr.To(true), ptr.To(true)
			c.Addresses, c.Routes = []string{"a"}, []VfRoute{{Destination: "a"}}
			c.IPAM, c.NetAttachDef = json.RawMessage(`{}`), &NetAttachDef{Name: "a"}
		})
	}
	original := full()
	copied, ok := original.DeepCopyObject().(*VfConfig)
	if !ok {
		t.Fatalf("the copy is a %T", original.DeepCopyObject())
	}
	for _, p := range []*int{copied.VLAN, copied.QoS, copied.MTU, copied.MinTxRate, copied.MaxTxRate} {
		*p = 2
	}
	*copied.Trust, *copied.SpoofCheck = false, false
	copied.Addresses[0], copied.Routes[0].Destination, copied.IPAM[0], copied.NetAttachDef.Name = "b", "b", '[', "b"
	if diff := cmp.Diff(full(), original); diff != "" {
		t.Errorf("changing the copy changed the original (-before +after):\n%s", diff)
	}
}
