package controller

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// planKey is where a ConfigMap has a plan.
const planKey = "plan.json.gz"

// A controller ends in the middle of a gang, and the next one is of another
// release, so that it finds a plan that it would have written otherwise, or
// cannot read.
func TestAPlanOfAnotherRelease(t *testing.T) {
	rewritten := func(change func(plan map[string]any)) func(t *testing.T, data []byte) []byte {
		return func(t *testing.T, data []byte) []byte {
			t.Helper()
			plan := map[string]any{}
			if err := json.Unmarshal(unzipped(t, data), &plan); err != nil {
				t.Fatal(err)
			}
			change(plan)
			text, err := json.Marshal(plan)
			if err != nil {
				t.Fatal(err)
			}
			return zipped(t, text)
		}
	}
	tests := map[string]struct {
		change   func(t *testing.T, data []byte) []byte
		readable bool
	}{
		"fields that are not known": {rewritten(func(plan map[string]any) {
			plan["fabric"] = "b"
			if members, ok := plan["members"].([]any); ok {
				for _, member := range members {
					if fields, ok := member.(map[string]any); ok {
						fields["rank"] = 1
					}
				}
			}
		}), true},
		"a later version": {rewritten(func(plan map[string]any) { plan["version"] = 2 }), false},
		"broken JSON":     {func(t *testing.T, data []byte) []byte { return zipped(t, unzipped(t, data)[:100]) }, false},
		"another file":    {func(*testing.T, []byte) []byte { return []byte("version: 1\n") }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 2)
			f := &faults{after: 4, crashed: make(chan struct{})} // the plan, and a part of the claims
			first := s.start(settings{faults: f})
			s.gang("train", 4, 0, 4, 4)
			select {
			case <-f.crashed:
			case <-time.After(patience):
				t.Fatal("the controller has not crashed")
			}
			first.stop()
			plan := s.onlyPlan()
			plan.BinaryData[planKey] = test.change(t, plan.BinaryData[planKey])
			if _, err := cluster.Client.CoreV1().ConfigMaps(s.name).Update(s.ctx, plan, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			s.start(settings{})
			s.allAllocated(4)
			s.eventually("no plan is left", func() (bool, string) { return s.plans() == 0, "" })
			if !test.readable {
				s.event(plan.Name, "PlanUnreadable", "cannot be read and is removed")
			}
		})
	}
}

func (s *site) onlyPlan() *corev1.ConfigMap {
	s.t.Helper()
	maps, err := cluster.Client.CoreV1().ConfigMaps(s.name).List(s.ctx, metav1.ListOptions{LabelSelector: "eks-hybrid-dra/gang-plan=true"})
	if err != nil || len(maps.Items) != 1 {
		s.t.Fatal(fmt.Errorf("want one plan, there are %d: %w", len(maps.Items), err))
	}
	return &maps.Items[0]
}

func zipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var data bytes.Buffer
	w := gzip.NewWriter(&data)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

func unzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
