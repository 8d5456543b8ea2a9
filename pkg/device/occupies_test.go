package device

import "testing"

func TestPCIAddress(t *testing.T) {
	const address = "0000:1b:00.0"
	for name, test := range map[string]struct {
		occupies []string
		want     string
		ok       bool
	}{
		"one function":     {[]string{PCIThing(address)}, address, true},
		"behind others":    {[]string{"cpu-3", PCIThing(address), PCIThing("0000:1c:00.0")}, address, true},
		"no PCI function":  {[]string{"cpu-3"}, "", false},
		"nothing occupied": {nil, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := PCIAddress(test.occupies); got != test.want || ok != test.ok {
				t.Errorf("PCIAddress(%q) = %q, %v, want %q, %v", test.occupies, got, ok, test.want, test.ok)
			}
		})
	}
}
