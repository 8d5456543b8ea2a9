package gpu

import (
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
)

func BenchmarkDevices(b *testing.B) {
	m := newMachineWithDriver(b, simulated.DGXH200)
	f := New(m.opts)
	for b.Loop() {
		if _, err := f.Devices(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepare(b *testing.B) {
	m := newMachineWithDriver(b, simulated.DGXH200)
	f := New(m.opts)
	for b.Loop() {
		if _, err := f.Prepare(b.Context(), grant("gpu-3", "0000:61:00.0")); err != nil {
			b.Fatal(err)
		}
	}
}
