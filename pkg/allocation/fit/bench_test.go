package fit

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// large is a fleet of 1000 machines with 80 devices each and 5000 claims on them.
func large(b testing.TB, claims int) *world {
	b.Helper()
	var machines []fleettest.Machine
	for i := range 1000 {
		machines = append(machines, fleettest.DGX(fmt.Sprintf("dgx-%04d", i)))
	}
	w := newWorld(b, machines...)
	random := rand.New(rand.NewPCG(1, 2))
	taken := map[string]bool{}
	for w.claims < claims {
		node := fmt.Sprintf("dgx-%04d", random.IntN(1000))
		gpu := random.IntN(8)
		d := fmt.Sprintf("gpu-%d", gpu)
		switch random.IntN(3) {
		case 0:
			d += "-vf"
		case 1:
			d = fmt.Sprintf("vf-%d-%d", gpu, random.IntN(7))
		}
		thing := fmt.Sprint(node, "/", gpu)
		if d[0] == 'v' {
			thing = node + d
		}
		if taken[thing] {
			continue
		}
		taken[thing] = true
		w.use(node, d)
	}
	return w
}

func BenchmarkOneOnABusyFleet(b *testing.B) {
	w := large(b, 5000)
	requests := []resourceapi.DeviceRequest{gpus(1), fleettest.Request("p", fleettest.ClassGPUVF, 1), fleettest.Request("v", fleettest.ClassVF, 2)}
	b.ResetTimer()
	for i := range b.N {
		c := fleettest.Claim(fmt.Sprint("new-", i), requests[i%3])
		choice, err := w.One(b.Context(), Ask{Claims: []*resourceapi.ResourceClaim{c}})
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Assume(c.UID, &choice.Allocation); err != nil {
			b.Fatal(err)
		}
		if i%100 == 99 { // so that there is always something left
			b.StopTimer()
			for j := i - 99; j <= i; j++ {
				w.Forget(fleettest.Claim(fmt.Sprint("new-", j)).UID)
			}
			b.StartTimer()
		}
	}
}

// BenchmarkFirstOfItsKind is the time for a demand that was never seen before, on
// a fleet whose machines are all different.
func BenchmarkFirstOfItsKind(b *testing.B) {
	w := large(b, 5000)
	b.ResetTimer()
	for i := range b.N {
		c := fleettest.Claim("new", fleettest.Request("gpu", fleettest.ClassGPU, 2, fmt.Sprintf(`device.attributes["eks-hybrid-dra"].index >= 0 && %d >= 0`, i)))
		if _, err := w.One(b.Context(), Ask{Claims: []*resourceapi.ResourceClaim{c}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGang64x8(b *testing.B) {
	w := large(b, 0)
	for i := range 400 {
		w.use(fmt.Sprintf("dgx-%04d", i*2), fmt.Sprintf("gpu-%d", i%8))
	}
	b.ResetTimer()
	for b.Loop() {
		if _, err := w.Gang(b.Context(), Ask{Claims: members(64, gpus(8))}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGang64x2OnABusyFleet(b *testing.B) {
	w := large(b, 5000)
	b.ResetTimer()
	for b.Loop() {
		if _, err := w.Gang(b.Context(), Ask{Claims: members(64, gpus(2))}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemoryOfTheFleet(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := large(b, 5000)
	w.View()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
	runtime.KeepAlive(w)
}

// BenchmarkMemoryOfThePlanner is what is remembered of twenty sorts of demands
// after ten thousand claims.
func BenchmarkMemoryOfThePlanner(b *testing.B) {
	w := large(b, 3000)
	w.View()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 10_000 {
		c := fleettest.Claim(fmt.Sprint("new-", i), fleettest.Request("gpu", fleettest.ClassGPU, int64(1+i%2), fmt.Sprintf(`device.attributes["eks-hybrid-dra"].index >= 0 && %d >= 0`, i%20)))
		choice, err := w.One(b.Context(), Ask{Claims: []*resourceapi.ResourceClaim{c}})
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Assume(c.UID, &choice.Allocation); err != nil {
			b.Fatal(err)
		}
		if i >= 1000 {
			w.Forget(fleettest.Claim(fmt.Sprint("new-", i-1000)).UID)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
	runtime.KeepAlive(w)
}
