package docs

import (
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/explain"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

func TestEveryMetricOfClaimsIsDocumented(t *testing.T) {
	registry := &names{}
	if _, err := measure.New(registry, measure.Options{Fleet: fleet.New("eks-hybrid-dra")}); err != nil {
		t.Fatal(err)
	}
	page := read(t, "monitoring.md")
	if len(registry.all) != 4 {
		t.Errorf("the controller registers %v", registry.all)
	}
	for _, name := range registry.all {
		if !strings.Contains(page, "| `"+name+"` |") {
			t.Errorf("monitoring.md lacks the metric %s", name)
		}
	}
	for _, reason := range measure.Reasons() {
		if !strings.Contains(page, "| `"+string(reason)+"` |") {
			t.Errorf("monitoring.md lacks the reason %s", reason)
		}
	}
	for _, reason := range []string{explain.ReasonWaiting, explain.ReasonImpossible, explain.ReasonUnasked} {
		if !strings.Contains(page, "| `"+reason+"` |") {
			t.Errorf("monitoring.md lacks the event %s", reason)
		}
	}
}
