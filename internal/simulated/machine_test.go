package simulated

import (
	"regexp"
	"strings"
	"testing"
)

func TestParseModel(t *testing.T) {
	for _, name := range []string{"dgx-h100", "dgx-h200"} {
		if model, err := ParseModel(name); err != nil || string(model) != name {
			t.Errorf("ParseModel(%q) = %q, %v", name, model, err)
		}
	}
	for _, name := range []string{"", "DGX-H200", "dgx-b200"} {
		_, err := ParseModel(name)
		if err == nil || !strings.Contains(err.Error(), "dgx-h100, dgx-h200") {
			t.Errorf("ParseModel(%q): error %v does not list what is allowed", name, err)
		}
	}
}

func TestIdentitiesAreStableAndDistinct(t *testing.T) {
	uuid := regexp.MustCompile(`^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for _, model := range []Model{DGXH100, DGXH200} {
		for _, seed := range []string{"node-a", "node-b"} {
			again := New(model, seed)
			for i, g := range New(model, seed).gpus {
				if g.uuid != again.gpus[i].uuid || g.serial != again.gpus[i].serial {
					t.Errorf("GPU %d of %s %s has another identity the second time", i, model, seed)
				}
				if !uuid.MatchString(g.uuid) || len(g.serial) != 13 {
					t.Errorf("GPU %d: UUID %q or serial %q has not the real form", i, g.uuid, g.serial)
				}
				if seen[g.uuid] || seen[g.serial] {
					t.Errorf("GPU %d of %s %s shares its identity with another", i, model, seed)
				}
				seen[g.uuid], seen[g.serial] = true, true
			}
		}
	}
}
