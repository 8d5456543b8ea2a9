package sriov

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// A pod with CAP_NET_ADMIN gives its VF further names: one that the host has,
// that of the VF on the host, that of a pod's interface, and that which the VF
// has on its way.
func TestNamesThatAPodGives(t *testing.T) {
	t.Parallel()
	for _, ended := range []bool{false, true} {
		t.Run(fmt.Sprint("ended ", ended), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.kernel.HostNamespace().AddAltName(vf0, "enp24s0f0v0")
			before := m.state(vf0)
			g, p := grant("c", vf0, nil), m.pod("p")
			m.prepare(g)
			m.attach(g, p)
			for _, name := range []string{"ens1", "ens1v0", "vf000018001", "net2"} {
				p.AddAltName(vf0, name)
			}
			if ended {
				m.kernel.End(p.Namespace)
			}
			m.release(g)
			m.clean(vf0, before)
			address, err := topology.ParseAddress(vf0)
			m.must(err)
			if link, err := linkOf(m.opts.Kernel.Host(), address); err != nil || strings.Join(link.AltNames, " ") != "enp24s0f0v0" {
				t.Errorf("the VF has come back as %+v: %v", link, err)
			}

			next := m.pod("next")
			m.prepare(g)
			if got := m.attach(g, next); got.Interface != "net1" {
				t.Errorf("the next pod's interface is %q", got.Interface)
			}
			m.release(g)
			m.clean(vf0, before)
		})
	}
}

// A further name of the VF, which udev has given it, belongs to another interface
// by the time it comes back.
func TestFormerNameIsTaken(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.state(vf0)
	m.kernel.HostNamespace().AddAltName(vf0, "enp24s0f0v0")
	g, p := grant("c", vf0, nil), m.pod("p")
	m.prepare(g)
	m.attach(g, p)
	m.kernel.HostNamespace().AddLink(kernel.Link{Name: "enp24s0f0v0", Type: "ether"})
	m.release(g)
	m.clean(vf0, before)
}

// A driver that was bound anew has given each of two VFs the name of the other,
// which was free at that time.
func TestVFsThatHaveEachOthersNames(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.opts.ReturnWait = time.Minute
	before := map[string]string{vf0: m.state(vf0), vf1: m.state(vf1)}
	grants := []device.Grant{grant("a", vf0, nil), grant("b", vf1, nil)}
	for _, g := range grants {
		m.prepare(g)
	}
	m.rename(vf0, "aside")
	m.rename(vf1, "ens1v0")
	m.rename(vf0, "ens1v1")
	f := m.family()
	errs := make(chan error, len(grants))
	for _, g := range grants {
		go func() { errs <- f.Release(t.Context(), g) }()
	}
	for range grants {
		m.must(<-errs)
	}
	for address, was := range before {
		m.clean(address, was)
	}
}

// rename gives the interface of a VF on the host another name.
func (m *machine) rename(address, name string) {
	m.t.Helper()
	a, err := topology.ParseAddress(address)
	m.must(err)
	link, err := linkOf(m.opts.Kernel.Host(), a)
	m.must(err)
	m.must(m.opts.Kernel.Host().Rename(link.Index, name))
}

// The VF that has another's name does not give it back in time: its claim stays.
func TestVFWhoseNameIsNotGivenBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.state(vf0)
	g, other := grant("a", vf0, nil), grant("b", vf1, nil)
	m.prepare(g)
	m.prepare(other)
	m.rename(vf0, "aside")
	m.rename(vf1, "ens1v0")
	m.release(g)
	if got, want := m.state(vf0), strings.Replace(before, "ens1v0", "vf000018001", 1); got != want {
		t.Errorf("the VF is\n%s, want\n%s", got, want)
	}
}

// The name that a VF would have in its pod is a further name of an interface
// there.
func TestNameIsTakenBesides(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.pod("p")
	p.AddAltName("", "net1") // of lo and eth0
	g := grant("c", vf0, nil)
	m.prepare(g)
	if got := m.attach(g, p); got.Interface != "net2" {
		t.Errorf("the VF's interface is called %q", got.Interface)
	}
	named := grant("c", vf1, func(c *v1alpha1.VfConfig) { c.IfName = "net1" })
	m.prepare(named)
	_, err := m.family().Attach(t.Context(), named, p.Sandbox)
	wants(t, err, "ifName", "net1", vf1)
}

// IPoIB makes interfaces on that of a VF, which belong to the same function, and
// a pod chooses their index.
func TestInterfaceOnAVF(t *testing.T) {
	t.Parallel()
	address, err := topology.ParseAddress(vf0)
	if err != nil {
		t.Fatal(err)
	}
	links := []kernel.Link{
		{Index: 2, Name: "eth0"},
		{Index: 3, Name: "net1.8001", Device: vf0, Lower: 9},
		{Index: 9, Name: "net1", Device: vf0},
	}
	if got := pick(links, address); got == nil || got.Name != "net1" {
		t.Errorf("took %+v for the VF's interface", got)
	}
	// One whose lower interface is elsewhere, or unknown, is what it seems.
	for _, lower := range []int{0, 2, 9, 17} {
		links[2].Lower = lower
		if got := pick(links, address); got == nil || got.Name != "net1" {
			t.Errorf("lower interface %d: took %+v for the VF's interface", lower, got)
		}
	}
}

// Where RDMA devices belong to namespaces, a pod can give its one another name.
func TestRDMADeviceThatAPodRenames(t *testing.T) {
	t.Parallel()
	for _, mode := range []v1alpha1.VfMode{v1alpha1.VfModeNetdevice, v1alpha1.VfModeRDMA} {
		for _, ended := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, " ended ", ended), func(t *testing.T) {
				t.Parallel()
				m := newMachine(t)
				m.kernel.Exclusive = true
				m.rdma(vf0, "mlx5_8", 8)
				before := m.state(vf0)
				g, p := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.Mode = mode }), m.pod("p")
				m.prepare(g)
				m.attach(g, p)
				m.must(p.RenameRDMA("mlx5_8", "mine"))
				if got := m.attach(g, p); got.Changed {
					t.Error("a container that starts again has had the VF attached anew")
				}
				if ended {
					m.kernel.End(p.Namespace)
				}
				m.release(g)
				m.clean(vf0, before)
				links, err := m.kernel.HostNamespace().RDMALinks()
				if err != nil || len(links) != 1 || links[0].Name != "mlx5_8" {
					t.Errorf("the RDMA devices on the host are %+v: %v", links, err)
				}
			})
		}
	}
}
