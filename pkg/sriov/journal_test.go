package sriov

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// A reboot has reset the VF: what the journal says is no longer true, but CNI
// plugins keep things on disk.
func TestReboot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	g, p := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.IPAM = []byte(`{"type":"host-local"}`) }), m.pod("p")
	m.prepare(g)
	m.attach(g, p)
	anew := newMachine(t)
	anew.networks = m.networks
	anew.opts.DataDir, anew.opts.BootID, anew.opts.Networks = m.opts.DataDir, "boot-2", m.networks
	before := anew.state(vf0)
	anew.family().tidy(t.Context()) // leaves what plugins have to be given back
	anew.prepare(g)
	if names := m.networks.names(); len(names) > 0 {
		t.Errorf("CNI plugins still have %v", names)
	}
	anew.release(g)
	anew.clean(vf0, before)

	anew.prepare(g)
	anew.opts.BootID = "boot-3"
	anew.family().tidy(t.Context())
	anew.clean(vf0, before)
}

// The VF vanishes with everything: its claim can end, and nothing is left.
func TestVFGone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	g, p := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.IPAM = []byte(`{"type":"host-local"}`) }), m.pod("p")
	m.prepare(g)
	m.attach(g, p)
	p.RemoveLink(vf0)
	m.must(os.RemoveAll(m.pci(vf0)))
	m.family().tidy(t.Context())
	m.networks.delErr = errors.New("disk full")
	wants(t, m.family().Release(t.Context(), g), vf0, "disk full", "team/p")
	m.networks.delErr = nil
	m.release(g)
	if left, names := m.leftovers(), m.networks.names(); len(left)+len(names) > 0 {
		t.Errorf("left behind: %v %v", left, names)
	}
	// One that was never attached is forgotten at the next start.
	g = grant("c", vf1, nil)
	m.prepare(g)
	m.must(os.RemoveAll(m.pci(vf1)))
	m.family().tidy(t.Context())
	if left := m.leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A plugin that fails keeps its claim, not the VF.
func TestPluginFailsToDelete(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.state(vf0)
	g, p := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.NetAttachDef = &v1alpha1.NetAttachDef{Name: "blue"} }), m.pod("p")
	m.prepare(g)
	m.attach(g, p)
	m.networks.delErr = errors.New("disk full")
	wants(t, m.family().Release(t.Context(), g), vf0, "disk full", "team/p")
	if m.describe(p) != "" || m.hostLink(vf0).Name != "ens1v0" {
		t.Error("the VF did not come back")
	}
	m.networks.delErr = nil
	m.release(g)
	m.clean(vf0, before)
}

// A claim that has lost the VF without its release, as when the plugin's state
// was deleted by hand.
func TestFormerClaim(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.state(vf0)
	former, p := grant("former", vf0, func(c *v1alpha1.VfConfig) { c.VLAN = ptr.To(9) }), m.pod("p")
	m.prepare(former)
	m.attach(former, p)
	g := grant("c", vf0, nil)
	m.prepare(g)
	if state := m.state(vf0); state != before {
		t.Errorf("prepared for another claim it is\n%s", state)
	}
	m.release(former) // has nothing any more
	if len(m.leftovers()) != 1 {
		t.Error("the release of a claim took another one's journal")
	}
	m.release(g)
	m.clean(vf0, before)
}

// A journal that makes no sense is no reason to lose a VF.
func TestUnreadableJournal(t *testing.T) {
	t.Parallel()
	settings := `{"hardwareAddress":"00:00:00:00:00:00","vlan":{"id":0,"protocol":"802.1Q"},"spoofCheck":true,"trust":false,"linkState":"auto","txRate":{"min":0,"max":0}}`
	safe := func(name string) string {
		return name + " 02:00:00:00:18:00 mtu 1500 up false\n" + settings + "\nmlx5_core\n(null)\n0 RDMA"
	}
	config := func(c *v1alpha1.VfConfig) {
		c.VLAN, c.Trust, c.SpoofCheck, c.MaxTxRate, c.LinkState = ptr.To(9), ptr.To(true), ptr.To(false), ptr.To(9), "enable"
	}
	spoil := func(m *machine) {
		m.write(filepath.Join(m.opts.DataDir, journalFolder, vf0+".json"), `{"version":1,"dev`)
	}
	t.Run("released", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		g := grant("c", vf0, config)
		m.prepare(g)
		spoil(m)
		m.release(g)
		m.clean(vf0, safe("vf000018001"))
	})
	t.Run("container started anew", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		g, p := grant("c", vf0, config), m.pod("p")
		m.prepare(g)
		m.attach(g, p)
		had := m.describe(p)
		spoil(m)
		m.prepare(g)
		if got := m.attach(g, p); got.Changed || m.describe(p) != had {
			t.Errorf("the pod has %s", m.describe(p))
		}
		m.release(g)
		m.clean(vf0, safe("vf000018001"))
	})
	t.Run("pod lives on", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		g, p := grant("c", vf0, config), m.pod("p")
		m.prepare(g)
		m.attach(g, p)
		spoil(m)
		wants(t, m.family().Release(t.Context(), g), vf0, "not on the host", "journal")
		m.kernel.End(p.Namespace)
		m.release(g)
		m.clean(vf0, safe("vf000018001"))
	})
	t.Run("vfio-pci", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		g := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeVFIO })
		m.prepare(g)
		spoil(m)
		m.release(g)
		m.clean(vf0, safe("vf000018001"))
	})
	t.Run("next claim", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		m.prepare(grant("c", vf0, config))
		spoil(m)
		g, p := grant("next", vf0, nil), m.pod("p")
		m.prepare(g)
		m.attach(g, p)
		m.release(g)
		m.clean(vf0, safe("vf000018001"))
	})
}

// A runtime's path is one of the host's, whose links lead to places on the host.
func TestPathOnHost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.opts.HostRoot = t.TempDir()
	root := filepath.Join(m.opts.HostRoot, "proc/1/root")
	m.must(os.MkdirAll(filepath.Join(root, "var"), 0o755))
	m.must(os.Symlink("/run", filepath.Join(root, "var/run")))
	path, err := m.family().onHost("/var/run/netns/cni-1")
	m.must(err)
	if want := filepath.Join(root, "run/netns/cni-1"); path != want {
		t.Errorf("got %s, want %s", path, want)
	}
	m.opts.HostRoot = "/"
	if path, err = m.family().onHost("/var/run/netns/cni-1"); path != "/var/run/netns/cni-1" || err != nil {
		t.Errorf("on the host itself: got %s, %v", path, err)
	}
}
