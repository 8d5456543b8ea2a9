package device

import (
	"errors"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
)

func TestSameAnswer(t *testing.T) {
	base := func() Inventory {
		return Inventory{
			Devices:  []Device{{Name: "gpu-0", Occupies: []string{"pci-0000:1b:00.0"}}},
			Counters: []resourceapi.CounterSet{{Name: "gpu-0"}},
			Faults:   []Fault{{Subject: "GPU 1", Reason: "NVMLHandle", Err: errors.New("lost")}},
		}
	}
	for name, test := range map[string]struct {
		change func(*Inventory)
		err    error
		want   bool
	}{
		"nothing differs":          {change: func(*Inventory) {}, want: true},
		"the same fault once more": {change: func(i *Inventory) { i.Faults[0].Err = errors.New("lost") }, want: true},
		"none and no devices":      {change: func(i *Inventory) { i.Devices[0].Problems = []Problem{} }, want: true},
		"another fault":            {change: func(i *Inventory) { i.Faults[0].Err = errors.New("gone") }},
		"one fault less":           {change: func(i *Inventory) { i.Faults = nil }},
		"a problem":                {change: func(i *Inventory) { i.Devices[0].Problems = []Problem{{Reason: "LinkDown"}} }},
		"one device less":          {change: func(i *Inventory) { i.Devices = nil }},
		"other counters":           {change: func(i *Inventory) { i.Counters[0].Name = "gpu-1" }},
		"an error":                 {change: func(*Inventory) {}, err: errors.New("no driver")},
	} {
		t.Run(name, func(t *testing.T) {
			other := base()
			test.change(&other)
			if got := SameAnswer(base(), nil, other, test.err); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if got := SameAnswer(other, test.err, base(), nil); got != test.want {
				t.Errorf("the other way round: got %v, want %v", got, test.want)
			}
		})
	}
	if !SameAnswer(base(), errors.New("no driver"), base(), errors.New("no driver")) {
		t.Error("the same error once more is another answer")
	}
}
