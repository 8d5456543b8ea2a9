package managed

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatSharesHasOneAllocator(t *testing.T) {
	pair := []Device{
		{Name: "gpu-0", Shares: []string{"set-0"}}, {Name: "vf-9"}, {Name: "gpu-0-vf", Shares: []string{"set-0", "vf-0"}}, {Name: "vf-0", Shares: []string{"vf-0"}},
		{Name: "gpu-1", Shares: []string{"set-1"}},
	}
	for name, test := range map[string]struct {
		managed string
		along   []string
	}{
		"nothing":              {},
		"a device by itself":   {managed: "gpu-1"},
		"the whole":            {managed: "gpu-0-vf", along: []string{"gpu-0", "vf-0"}},
		"a part takes along":   {managed: "gpu-0", along: []string{"gpu-0-vf", "vf-0"}},
		"the other part, also": {managed: "vf-0", along: []string{"gpu-0", "gpu-0-vf"}},
	} {
		t.Run(name, func(t *testing.T) {
			devices := append([]Device{}, pair...)
			for n := range devices {
				devices[n].Managed = devices[n].Name == test.managed
			}
			if diff := cmp.Diff(test.along, TakenAlong(devices)); diff != "" {
				t.Errorf("taken along (-want +got):\n%s", diff)
			}
		})
	}
	if got := len(groups(pair)); got != 3 {
		t.Errorf("%d groups, want 3", got)
	}
}
