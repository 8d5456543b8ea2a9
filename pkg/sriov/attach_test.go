package sriov

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

func wants(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

func (m *machine) prepare(g device.Grant) device.Edits {
	m.t.Helper()
	edits, err := m.family().Prepare(m.t.Context(), g)
	m.must(err)
	return edits
}

func (m *machine) attach(g device.Grant, p *pod) device.Attachment {
	m.t.Helper()
	attachment, err := m.family().Attach(m.t.Context(), g, p.Sandbox)
	m.must(err)
	return attachment
}

func (m *machine) release(g device.Grant) {
	m.t.Helper()
	m.must(m.family().Release(m.t.Context(), g))
}

// What a claim asks for is what the pod gets, and nothing of it stays.
func TestAttach(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		config  func(*v1alpha1.VfConfig)
		machine func(*machine)
		want    string
		ips     []string
	}{
		{name: "nothing asked for", want: "net1 is 0000:18:00.1 02:00:00:00:18:00 mtu 1500 up true []"},
		{
			name: "everything asked for",
			config: func(c *v1alpha1.VfConfig) {
				c.IfName, c.MAC, c.MTU = "fast0", "02:00:00:00:00:99", ptr.To(9000)
				c.VLAN, c.QoS, c.Trust, c.SpoofCheck, c.LinkState = ptr.To(100), ptr.To(3), ptr.To(true), ptr.To(false), "enable"
				c.MinTxRate, c.MaxTxRate = ptr.To(10), ptr.To(1000)
				c.Addresses = []string{"192.168.1.5/24", "fd00::5/64"}
				c.Routes = []v1alpha1.VfRoute{{Destination: "10.0.0.0/8", Gateway: "192.168.1.1"}}
			},
			want: "fast0 is 0000:18:00.1 02:00:00:00:00:99 mtu 9000 up true [192.168.1.5/24 fd00::5/64]\nroute 10.0.0.0/8 by 192.168.1.1",
			ips:  []string{"192.168.1.5/24", "fd00::5/64"},
		},
		{
			name:    "a NIC on which the PF rules the address",
			config:  func(c *v1alpha1.VfConfig) { c.MAC = "02:00:00:00:00:99" },
			machine: func(m *machine) { m.kernel.PFRulesAddress = true },
			want:    "net1 is 0000:18:00.1 02:00:00:00:00:99 mtu 1500 up true []",
		},
		{
			name:   "addresses of an IPAM plugin",
			config: func(c *v1alpha1.VfConfig) { c.IPAM = []byte(`{"type":"host-local"}`) },
			want:   "net1 is 0000:18:00.1 02:00:00:00:18:00 mtu 1500 up true [10.9.0.7/24]\nroute 10.9.8.0/24 by 10.9.0.1",
			ips:    []string{"10.9.0.7/24"},
		},
		{
			name:   "plugins of a NetworkAttachmentDefinition",
			config: func(c *v1alpha1.VfConfig) { c.NetAttachDef = &v1alpha1.NetAttachDef{Name: "blue"} },
			want:   "net1 is 0000:18:00.1 02:00:00:00:18:00 mtu 1500 up true [10.8.0.3/24]",
			ips:    []string{"10.8.0.3/24"},
		},
		{
			name:    "an RDMA device that belongs to a namespace",
			machine: func(m *machine) { m.kernel.Exclusive = true; m.rdma(vf0, "mlx5_2", 2) },
			want:    "net1 is 0000:18:00.1 02:00:00:00:18:00 mtu 1500 up true []\nRDMA mlx5_2",
		},
		{
			name:    "an RDMA device alone",
			config:  func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeRDMA },
			machine: func(m *machine) { m.kernel.Exclusive = true; m.rdma(vf0, "mlx5_2", 2) },
			want:    "RDMA mlx5_2",
		},
		{
			name:    "an interface that an admin has set up",
			machine: func(m *machine) { link := m.hostLink(vf0); m.must(m.kernel.HostNamespace().SetUp(link.Index)) },
			want:    "net1 is 0000:18:00.1 02:00:00:00:18:00 mtu 1500 up true []",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			before := m.state(vf0) // down
			if tc.machine != nil {
				tc.machine(m)
				if m.kernel.Exclusive {
					before = m.state(vf0)
				}
			}
			g, p := grant("c", vf0, tc.config), m.pod("p")
			if edits := m.prepare(g); !edits.Attach {
				t.Fatal("the VF is not to be attached")
			}
			attachment := m.attach(g, p)
			if diff := cmp.Diff(tc.want, m.describe(p)); diff != "" {
				t.Errorf("the pod has something else (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.ips, attachment.IPs); diff != "" || !attachment.Changed {
				t.Errorf("told other addresses, or no change (%t) (-want +got):\n%s", attachment.Changed, diff)
			}
			// The container starts anew, maybe with a new plugin.
			m.prepare(g)
			if again := m.attach(g, p); again.Changed || !cmp.Equal(again.IPs, tc.ips) || again.Interface != attachment.Interface {
				t.Errorf("attaching it again answered %+v", again)
			}
			if diff := cmp.Diff(tc.want, m.describe(p)); diff != "" {
				t.Errorf("attaching it again changed it (-want +got):\n%s", diff)
			}
			m.release(g)
			m.release(g)
			if got := m.describe(p); got != "" {
				t.Errorf("after its release the pod still has %s", got)
			}
			m.clean(vf0, before)
		})
	}
}

func (m *machine) hostLink(address string) kernel.Link {
	m.t.Helper()
	links, err := m.kernel.HostNamespace().Links()
	m.must(err)
	for _, l := range links {
		if l.Device == address {
			return l
		}
	}
	m.t.Fatalf("no interface of %s on the host", address)
	return kernel.Link{}
}

// The PF's settings are those of the claim while it has the VF.
func TestSettingsOfThePF(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.prepare(grant("c", vf0, func(c *v1alpha1.VfConfig) {
		c.VLAN, c.Proto, c.MaxTxRate, c.Trust, c.LinkState, c.MAC = ptr.To(7), "802.1ad", ptr.To(50), ptr.To(true), "disable", "02:00:00:00:00:07"
	}))
	want := `{"hardwareAddress":"02:00:00:00:00:07","vlan":{"id":7,"protocol":"802.1ad"},"spoofCheck":true,"trust":true,"linkState":"disable","txRate":{"min":0,"max":50}}`
	if state := m.state(vf0); !strings.Contains(state, want) {
		t.Errorf("the PF has\n%s\nand not\n%s", state, want)
	}
}

func TestSeveralVFsInOnePod(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.pod("p")
	a, b := grant("c", vf0, nil), grant("c", vf1, func(c *v1alpha1.VfConfig) { c.IfName = "net1" })
	m.prepare(a)
	m.prepare(b)
	// The first may choose, and leaves the other the name that it asks for.
	if got := m.attach(a, p).Interface; got != "net2" {
		t.Errorf("the VF that may choose is called %s", got)
	}
	if got := m.attach(b, p).Interface; got != "net1" {
		t.Errorf("the VF that wants net1 is called %s", got)
	}
	m.release(a)
	if got := m.describe(p); !strings.Contains(got, vf1) || strings.Contains(got, vf0) {
		t.Errorf("after the release of one VF the pod has %s", got)
	}
	m.release(b)
}

// Each of these is refused with a reason, and leaves nothing behind.
func TestAttachRefuses(t *testing.T) {
	t.Parallel()
	refuse := func(operation string, err error) func(*machine) {
		return func(m *machine) {
			m.kernel.Refuse = func(op string, _ any) error {
				if op == operation {
					return err
				}
				return nil
			}
		}
	}
	for _, tc := range []struct {
		name   string
		config func(*v1alpha1.VfConfig)
		after  func(*machine) // after the preparation
		want   []string
	}{
		{name: "a name that is taken", config: func(c *v1alpha1.VfConfig) { c.IfName = "eth0" }, want: []string{"ifName", "eth0", "team/p", vf0}},
		{name: "the move", after: refuse("Move", syscall.EBUSY), want: []string{"move", vf0, "team/p", "device or resource busy"}},
		{name: "an address", config: func(c *v1alpha1.VfConfig) { c.Addresses = []string{"10.0.0.5/24"} }, after: refuse("AddAddress", syscall.EACCES), want: []string{"addresses", "10.0.0.5/24", "net1", "permission denied"}},
		{
			name: "a route",
			config: func(c *v1alpha1.VfConfig) {
				c.Addresses, c.Routes = []string{"10.0.0.5/24"}, []v1alpha1.VfRoute{{Destination: "10.1.0.0/16", Gateway: "10.7.0.1"}}
			},
			want: []string{"routes", "10.1.0.0/16 by 10.7.0.1", "network is unreachable"},
		},
		{name: "a plugin", config: func(c *v1alpha1.VfConfig) { c.NetAttachDef = &v1alpha1.NetAttachDef{Name: "blue"} }, after: func(m *machine) { m.networks.addErr = errors.New("no leases left") }, want: []string{vf0, "no leases left"}},
		{name: "a plugin that forgets the VF", config: func(c *v1alpha1.VfConfig) { c.NetAttachDef = &v1alpha1.NetAttachDef{Name: "blue"} }, after: func(m *machine) { m.networks.astray = true }, want: []string{"netAttachDef", vf0, "deviceID"}},
		{name: "an IPAM plugin", config: func(c *v1alpha1.VfConfig) { c.IPAM = []byte(`{"type":"host-local"}`) }, after: func(m *machine) { m.networks.addErr = errors.New("no leases left") }, want: []string{"ipam", "no leases left"}},
		{name: "a VF without interface", after: func(m *machine) { m.kernel.HostNamespace().RemoveLink(vf0) }, want: []string{vf0, "no network interface"}},
		{name: "an RDMA device", after: func(m *machine) {
			m.kernel.Exclusive = true
			m.rdma(vf0, "mlx5_2", 2)
			refuse("MoveRDMA", syscall.EBUSY)(m)
		}, want: []string{"mlx5_2", "busy"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			before := m.state(vf0)
			g, p := grant("c", vf0, tc.config), m.pod("p")
			m.prepare(g)
			if tc.after != nil {
				tc.after(m)
				before = m.state(vf0)
			}
			_, err := m.family().Attach(t.Context(), g, p.Sandbox)
			wants(t, err, tc.want...)
			if got := m.describe(p); got != "" {
				t.Errorf("the pod has %s", got)
			}
			m.kernel.Refuse = nil
			m.release(g)
			m.clean(vf0, before)
		})
	}
}

func TestAttachNotPrepared(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.pod("p")
	_, err := m.family().Attach(t.Context(), grant("c", vf0, nil), p.Sandbox)
	wants(t, err, vf0, "not prepared", "team/c")
	m.prepare(grant("other", vf0, nil))
	_, err = m.family().Attach(t.Context(), grant("c", vf0, nil), p.Sandbox)
	wants(t, err, vf0, "team/other", "team/c")
	m.opts.BootID = "boot-2"
	_, err = m.family().Attach(t.Context(), grant("other", vf0, nil), p.Sandbox)
	wants(t, err, vf0, "before the node was started anew")
	admin := grant("other", vf0, nil)
	admin.AdminAccess = true
	_, err = m.family().Attach(t.Context(), admin, p.Sandbox)
	wants(t, err, "admin access")
}

func TestHostNetwork(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.rdma(vf0, "mlx5_2", 2)
	host := m.inNamespace("p", m.kernel.HostNamespace())
	before := m.state(vf0)
	g := grant("c", vf0, nil)
	m.prepare(g)
	_, err := m.family().Attach(t.Context(), g, host.Sandbox)
	wants(t, err, "hostNetwork", "team/p", vf0, "rdma")
	m.release(g)
	m.clean(vf0, before)
	m.kernel.Exclusive = true
	g = grant("c", vf0, func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeRDMA })
	m.prepare(g)
	if got := m.attach(g, host); got.Changed {
		t.Errorf("the host was changed: %+v", got)
	}
}

// A claim that two pods share: the second is told who has the VF, and gets it
// when the first is gone.
func TestSharedClaim(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.kernel.ReturnAfter = 3
	before := m.state(vf0)
	g, first, second := grant("c", vf0, nil), m.pod("first"), m.pod("second")
	m.prepare(g)
	m.attach(g, first)
	had := m.describe(first)
	_, err := m.family().Attach(t.Context(), g, second.Sandbox)
	wants(t, err, vf0, "team/first", "uid-first", "ResourceClaimTemplate")
	if got := m.describe(first); got != had {
		t.Errorf("the first pod's VF was touched: %s", got)
	}
	m.kernel.End(first.Namespace)
	if got := m.attach(g, second); got.Interface != "net1" {
		t.Errorf("the second pod's VF is called %s", got.Interface)
	}
	// What is detached is only what is there.
	m.must(m.family().Detach(t.Context(), g, first.Sandbox))
	if m.describe(second) == "" {
		t.Error("detaching the first pod took the second one's VF")
	}
	m.must(m.family().Detach(t.Context(), g, second.Sandbox))
	if got, want := m.hostLink(vf0), "ens1v0"; got.Name != want || got.Up {
		t.Errorf("after detaching, the host has %+v", got)
	}
	m.attach(g, second)
	m.release(g)
	m.clean(vf0, before)
}

// Kubelet has lost a sandbox and made another one for the same pod.
func TestSandboxMadeAnew(t *testing.T) {
	t.Parallel()
	for _, ended := range []bool{false, true} {
		t.Run(fmt.Sprint("ended ", ended), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.kernel.ReturnAfter = 2
			before := m.state(vf0)
			g, old, anew := grant("c", vf0, nil), m.pod("p"), m.pod("p")
			anew.Sandbox.ID = "another-sandbox"
			m.prepare(g)
			m.attach(g, old)
			if ended {
				m.kernel.End(old.Namespace)
			}
			if got := m.attach(g, anew); !got.Changed || m.describe(anew) == "" {
				t.Errorf("the new sandbox has not got the VF: %+v", got)
			}
			m.release(g)
			m.clean(vf0, before)
		})
	}
}

// The kernel gives the interface of a namespace that has ended back under the
// pod's name, some time later, and another interface may have that name or the
// VF's own by then.
func TestNamespaceEnded(t *testing.T) {
	t.Parallel()
	for _, clash := range []string{"", "net1", "ens1v0"} {
		t.Run("clash "+clash, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.kernel.ReturnAfter = 4
			before := m.state(vf0)
			g, p := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.VLAN, c.MTU = ptr.To(5), ptr.To(2000) }), m.pod("p")
			m.prepare(g)
			m.attach(g, p)
			if clash != "" {
				m.kernel.HostNamespace().AddLink(kernel.Link{Name: clash, Type: "ether"})
			}
			m.kernel.End(p.Namespace)
			m.release(g)
			if clash == "ens1v0" {
				before = strings.Replace(before, "ens1v0", "vf000018001", 1)
			}
			m.clean(vf0, before)
		})
	}
}

// The pod's namespace has ended, and nothing says where the VF is.
func TestLostInterface(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	g, p := grant("c", vf0, nil), m.pod("p")
	m.prepare(g)
	m.attach(g, p)
	p.RemoveLink(vf0)
	wants(t, m.family().Release(t.Context(), g), vf0, "team/p", p.Path(), "neither")
	m.kernel.Bound(kernel.Link{Name: "eth7", Device: vf0, Type: "ether", HardwareAddress: ownMAC(0)})
	m.release(g)
	if left := m.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
