package selection

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/fixture"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

const (
	infiniBandPF = "0000:18:00.0"
	ethernetPF   = "0000:29:00.1"
	hostPF       = "0000:aa:00.0"
)

// machine has an InfiniBand PF with three VFs, of which the last is bound to
// vfio-pci, an Ethernet PF of Intel's with two and no RDMA, and the host's own
// with one.
func machine(t *testing.T) nic.Machine {
	t.Helper()
	m := fixture.New(t)
	m.AddPF(fixture.PF{Address: infiniBandPF, Driver: "mlx5_core", Netdev: "ibp24s0", RDMA: "mlx5_0", InfiniBand: true})
	m.AddPF(fixture.PF{Address: ethernetPF, Driver: "igb", VFDriver: "igbvf", Netdev: "enp41s0f1", Vendor: "8086", Device: "10c9", VFDevice: "10ca"})
	m.AddPF(fixture.PF{Address: hostPF, Driver: "mlx5_core", Netdev: "eth0", RDMA: "mlx5_9"})
	m.SetNumVFs(infiniBandPF, 3)
	m.SetNumVFs(ethernetPF, 2)
	m.SetNumVFs(hostPF, 1)
	m.Unbind(fixture.VF(infiniBandPF, 2))
	if err := m.Write(m.Root+"/bus/pci/drivers/vfio-pci/bind", fixture.VF(infiniBandPF, 2)); err != nil {
		t.Fatal(err)
	}
	m.Host.RouteList = []kernel.Route{{Link: m.Host.Link(hostPF).Index, Destination: netip.MustParsePrefix("0.0.0.0/0")}}
	found, faults, err := nic.Scan(t.Context(), nic.Options{SysfsRoot: m.Root, Host: m.Host})
	if err != nil || len(faults) > 0 {
		t.Fatal(err, faults)
	}
	return found
}

func TestSelects(t *testing.T) {
	found := machine(t)
	// VFs by a letter for the PF and their number.
	all := []string{"i0", "i1", "i2", "e0", "e1"}
	for name, test := range map[string]struct {
		selectors []v1alpha1.VFSelector
		want      []string
	}{
		"no selectors":             {nil, all},
		"one without conditions":   {[]v1alpha1.VFSelector{{}}, all},
		"vendor":                   {[]v1alpha1.VFSelector{{Vendors: []string{"8086"}}}, []string{"e0", "e1"}},
		"one of two devices":       {[]v1alpha1.VFSelector{{Devices: []string{"10ca", "ffff"}}}, []string{"e0", "e1"}},
		"a PF's device":            {[]v1alpha1.VFSelector{{Devices: []string{"10c9"}}}, nil},
		"driver":                   {[]v1alpha1.VFSelector{{Drivers: []string{"mlx5_core"}}}, []string{"i0", "i1"}},
		"PF name":                  {[]v1alpha1.VFSelector{{PFNames: []string{"ibp24s0"}}}, []string{"i0", "i1", "i2"}},
		"PF name and numbers":      {[]v1alpha1.VFSelector{{PFNames: []string{"ibp24s0#0,2-7", "enp41s0f1#1"}}}, []string{"i0", "i2", "e1"}},
		"PF name is whole":         {[]v1alpha1.VFSelector{{PFNames: []string{"ibp24s"}}}, nil},
		"root device and numbers":  {[]v1alpha1.VFSelector{{RootDevices: []string{infiniBandPF + "#1-2"}}}, []string{"i1", "i2"}},
		"PCI address":              {[]v1alpha1.VFSelector{{PCIAddresses: []string{"0000:18:00.2"}}}, []string{"i1"}},
		"link type":                {[]v1alpha1.VFSelector{{LinkTypes: []string{"infiniband"}}}, []string{"i0", "i1", "i2"}},
		"with RDMA":                {[]v1alpha1.VFSelector{{RDMA: ptr.To(true)}}, []string{"i0", "i1"}},
		"without RDMA":             {[]v1alpha1.VFSelector{{RDMA: ptr.To(false)}}, []string{"i2", "e0", "e1"}},
		"all conditions":           {[]v1alpha1.VFSelector{{Vendors: []string{"15b3"}, LinkTypes: []string{"ether"}}}, nil},
		"any selector":             {[]v1alpha1.VFSelector{{PFNames: []string{"ibp24s0#0"}}, {Vendors: []string{"8086"}}}, []string{"i0", "e0", "e1"}},
		"the host's own by name":   {[]v1alpha1.VFSelector{{PFNames: []string{"eth0"}}}, []string{"h0"}},
		"the host's own by place":  {[]v1alpha1.VFSelector{{RootDevices: []string{hostPF}}}, []string{"h0"}},
		"the host's own VF":        {[]v1alpha1.VFSelector{{PCIAddresses: []string{fixture.VF(hostPF, 0)}}}, []string{"h0"}},
		"the host's own by vendor": {[]v1alpha1.VFSelector{{Vendors: []string{"15b3"}, RDMA: ptr.To(true)}}, []string{"i0", "i1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(v1alpha1.SRIOVConfig{Selectors: test.selectors})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i, pf := range found.PFs {
				for n, vf := range pf.VFs {
					if s.Selects(pf, vf) {
						got = append(got, string("ieh"[i])+string(rune('0'+n)))
					}
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("VFs (-want +got):\n%s", diff)
			}
		})
	}
}

// A VF that the host itself uses goes to nobody, unless it is named.
func TestSelectsHostVF(t *testing.T) {
	pf := machine(t).PFs[0]
	vf := pf.VFs[0]
	vf.HostUse = "it has the default route"
	for i, test := range []struct {
		selectors []v1alpha1.VFSelector
		want      bool
	}{
		{nil, false},
		{[]v1alpha1.VFSelector{{PFNames: []string{"ibp24s0"}}}, false},
		{[]v1alpha1.VFSelector{{PCIAddresses: []string{vf.Address.String()}}}, true},
	} {
		s, err := New(v1alpha1.SRIOVConfig{Selectors: test.selectors})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Selects(pf, vf); got != test.want {
			t.Errorf("selectors %d: got %v, want %v", i, got, test.want)
		}
	}
}

func TestWants(t *testing.T) {
	found := machine(t)
	eight := func(s v1alpha1.VFSelector) []v1alpha1.VFSelector {
		s.NumVFs = ptr.To(8)
		return []v1alpha1.VFSelector{s}
	}
	for name, test := range map[string]struct {
		selectors []v1alpha1.VFSelector
		// want is the PFs with 8 VFs.
		want string
	}{
		"all":              {eight(v1alpha1.VFSelector{}), "ie"},
		"vendor":           {eight(v1alpha1.VFSelector{Vendors: []string{"15b3"}}), "i"},
		"devices of VFs":   {eight(v1alpha1.VFSelector{Devices: []string{"10ca"}}), "e"},
		"drivers of VFs":   {eight(v1alpha1.VFSelector{Drivers: []string{"igbvf"}}), "e"},
		"PF name":          {eight(v1alpha1.VFSelector{PFNames: []string{"ibp24s0#0-3"}}), "i"},
		"host's PF":        {eight(v1alpha1.VFSelector{PFNames: []string{"eth0"}}), "h"},
		"address to come":  {eight(v1alpha1.VFSelector{PCIAddresses: []string{fixture.VF(ethernetPF, 7)}}), "e"},
		"address too far":  {eight(v1alpha1.VFSelector{PCIAddresses: []string{fixture.VF(ethernetPF, 8)}}), ""},
		"link type":        {eight(v1alpha1.VFSelector{LinkTypes: []string{"infiniband"}}), "i"},
		"RDMA":             {eight(v1alpha1.VFSelector{RDMA: ptr.To(false)}), "e"},
		"no number at all": {[]v1alpha1.VFSelector{{}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(v1alpha1.SRIOVConfig{Selectors: test.selectors})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for i, pf := range found.PFs {
				// Without VFs, those that would be are what counts.
				for _, vfs := range [][]nic.VF{pf.VFs, nil} {
					pf.VFs = vfs
					if w := s.Wants(pf); w.NumVFs != nil && *w.NumVFs == 8 && vfs == nil {
						got += string("ieh"[i])
					}
				}
			}
			if got != test.want {
				t.Errorf("got 8 VFs for %q, want %q", got, test.want)
			}
		})
	}

	s, err := New(v1alpha1.SRIOVConfig{Selectors: []v1alpha1.VFSelector{
		{MTU: ptr.To(9000), PFNames: []string{"ibp24s0"}},
		{NumVFs: ptr.To(4), ExternallyManaged: true},
		{NumVFs: ptr.To(5), MTU: ptr.To(1400)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := Wanted{NumVFs: ptr.To(4), ExternallyManaged: true, MTU: ptr.To(9000)}
	if diff := cmp.Diff(want, s.Wants(found.PFs[0])); diff != "" {
		t.Errorf("what several selectors want (-want +got):\n%s", diff)
	}
	nameless := found.PFs[0]
	nameless.Netdev = nil
	want.MTU = ptr.To(1400)
	if diff := cmp.Diff(want, s.Wants(nameless)); diff != "" {
		t.Errorf("what is wanted of a PF without a name (-want +got):\n%s", diff)
	}
}

// Nobody is told of NICs that the configuration does not speak of.
func TestConsiders(t *testing.T) {
	found := machine(t)
	broken := found.PFs[0]
	broken.Netdev, broken.RDMA, broken.Driver, broken.VFs = nil, nil, "", nil
	for i, test := range []struct {
		selectors []v1alpha1.VFSelector
		pf        nic.PF
		want      bool
	}{
		{nil, broken, true},
		{nil, found.PFs[2], false},
		{[]v1alpha1.VFSelector{{PFNames: []string{"ibp24s0"}, RDMA: ptr.To(true), Drivers: []string{"mlx5_core"}}}, broken, true},
		{[]v1alpha1.VFSelector{{Vendors: []string{"8086"}}}, broken, false},
		{[]v1alpha1.VFSelector{{RootDevices: []string{ethernetPF}}}, broken, false},
	} {
		s, err := New(v1alpha1.SRIOVConfig{Selectors: test.selectors})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Considers(test.pf); got != test.want {
			t.Errorf("case %d: got %v, want %v", i, got, test.want)
		}
	}
}

func TestNewErrors(t *testing.T) {
	_, err := New(v1alpha1.SRIOVConfig{Selectors: []v1alpha1.VFSelector{
		{},
		{PFNames: []string{"ibp24s0", "ibp24s0#3-1"}, RootDevices: []string{"18:00.0#1"}, Vendors: []string{"mlx"}, PCIAddresses: []string{"x"}},
	}})
	for _, want := range []string{"sriov.selectors[1]: ", "pfNames[1]", `"3-1"`, "rootDevices[0]", "vendors[0]", `"mlx"`, "pciAddresses[0]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestParseNamed(t *testing.T) {
	for text, want := range map[string][][2]int{
		"a": nil, "a#0": {{0, 0}}, "a#0-3,5": {{0, 3}, {5, 5}}, "a#0,2-7": {{0, 0}, {2, 7}},
		"a#": {{-1}}, "a#-1": {{-1}}, "a#1-": {{-1}}, "a#x": {{-1}}, "a#1,": {{-1}}, "a#3-1": {{-1}}, "#1": {{-1}}, "": {{-1}}, "a#1#2": {{-1}}, "a#+1": {{-1}},
	} {
		got, err := ParseNamed(text, func(s string) (string, error) { return s, nil })
		bad := len(want) > 0 && want[0][0] < 0
		if (err != nil) != bad || !bad && (got.Name != "a" || !slices.Equal(got.VFs, want)) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func FuzzParseNamed(f *testing.F) {
	for _, seed := range []string{"ibp24s0#0-3,5", "0000:18:00.0#0,2-7", "a", "#", "a#99999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		named, err := ParseNamed(text, func(s string) (string, error) { return s, nil })
		_, list, some := strings.Cut(text, "#")
		if err == nil && (named.Name == "" || some != (len(named.VFs) > 0) || some && list == "") {
			t.Errorf("%q was read as %+v", text, named)
		}
		for _, r := range named.VFs {
			if r[0] < 0 || r[0] > r[1] || !named.Has(r[0]) || !named.Has(r[1]) {
				t.Errorf("%q has the range %v", text, r)
			}
		}
		if _, err := ParseNamed(text, topology.ParseAddress); err == nil && !strings.Contains(text, ":") {
			t.Errorf("%q was read as a PCI address", text)
		}
	})
}
