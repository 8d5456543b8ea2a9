package sriov

import (
	"strings"
	"testing"

	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/fixture"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Only VFs that the plugin made are taken away, and only while nobody uses them.
func TestTakeDown(t *testing.T) {
	const first = "0000:29:00.2"
	for name, test := range map[string]struct {
		before int
		change func(t *testing.T, m *fixture.Machine, f *Family)
		want   string // number of VFs afterwards
		say    string
	}{
		"ours":            {want: "0"},
		"somebody else's": {before: 2, want: "2"},
		"made anew by somebody else": {want: "4", change: func(_ *testing.T, m *fixture.Machine, _ *Family) {
			m.SetNumVFs(ethPF, 0)
			m.SetNumVFs(ethPF, 4)
		}},
		"of another boot": {want: "2", change: func(_ *testing.T, _ *fixture.Machine, f *Family) { f.opts.BootID = "boot-2" }},
		"a claim has one": {want: "2", say: "a claim has VF 0 (" + first + ")", change: func(t *testing.T, _ *fixture.Machine, f *Family) {
			address, err := topology.ParseAddress(first)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.journal.Save(address, &vfstate.Journal{BootID: "boot-1"}); err != nil {
				t.Fatal(err)
			}
		}},
		"in somebody's namespace": {want: "2", say: "VF 0 (" + first + ") is not on the host", change: func(_ *testing.T, m *fixture.Machine, _ *Family) {
			m.Host.Take(first)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixture.New(t)
			addEthernet(m, test.before)
			m.Host.Change(ethPF, func(l *kernel.Link) { l.Up = true })
			f := lookAt(t, m, v1alpha1.VFSelector{NumVFs: ptr.To(2)})
			inventory(t, f)
			if test.change != nil {
				test.change(t, m, f)
			}
			err := f.TakeDown(t.Context())
			if test.say == "" && err != nil || test.say != "" && (err == nil || !strings.Contains(err.Error(), test.say)) {
				t.Errorf("got error %v, want one that says %q", err, test.say)
			}
			if got := m.Read(ethPF, "sriov_numvfs"); got != test.want {
				t.Errorf("the PF has %s VFs, want %s", got, test.want)
			}
			if test.say == "" {
				if err := f.TakeDown(t.Context()); err != nil {
					t.Errorf("the second time: %v", err)
				}
			}
		})
	}
}
