package sriov

import (
	"errors"
	"fmt"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

func TestNeighboursAreTold(t *testing.T) {
	t.Parallel()
	static := func(c *v1alpha1.VfConfig) { c.Addresses = []string{"192.168.10.5/24", "fd00::5/64"} }
	for name, test := range map[string]struct {
		change  func(*v1alpha1.VfConfig)
		machine func(*machine)
		want    string
	}{
		"static addresses":  {static, nil, "[192.168.10.5/24 fd00::5/64]"},
		"of an IPAM plugin": {func(c *v1alpha1.VfConfig) { c.IPAM = []byte(`{"type":"static"}`) }, nil, "[10.9.0.7/24]"},
		"no addresses":      {nil, nil, "[]"},
		"no link":           {static, func(m *machine) { m.kernel.NoCarrier = true }, "[]"},
		"failure":           {static, func(m *machine) { m.kernel.AnnounceErr = errors.New("no buffers") }, "[192.168.10.5/24 fd00::5/64]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			if test.machine != nil {
				test.machine(m)
			}
			g, p := grant("c", vf0, test.change), m.pod("p")
			m.prepare(g)
			m.attach(g, p) // must not fail
			m.attach(g, p) // tells nobody again
			if got := fmt.Sprint(p.Announced()); got != test.want {
				t.Errorf("the neighbours were told of %s, want %s", got, test.want)
			}
		})
	}
}
