package driver

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// Memory is given back once after the start and once after each time of work,
// and not while there is work.
func TestMemoryIsGivenBackAtRest(t *testing.T) {
	collections := func() uint32 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.NumForcedGC
	}
	synctest.Test(t, func(t *testing.T) {
		used := newSignal()
		ctx, cancel := context.WithCancel(t.Context())
		go giveMemoryBack(ctx, used)
		// The clock is that of the test, and does not wait.
		pass := func(d time.Duration) { <-time.After(d) }
		for _, step := range []struct {
			name string
			work func()
		}{
			{"start", func() {}},
			{"work", used.send},
			{"work for longer", func() { used.send(); pass(quietAfter - time.Second); used.send() }},
		} {
			name := step.name
			step.work()
			synctest.Wait()
			before := collections()
			pass(quietAfter - time.Second)
			if collections() != before {
				t.Errorf("%s: memory was given back too early", name)
			}
			pass(2 * time.Second)
			synctest.Wait()
			if collections() == before {
				t.Errorf("%s: memory was not given back", name)
			}
			before = collections()
			pass(10 * quietAfter)
			if collections() != before {
				t.Errorf("%s: memory is given back again and again", name)
			}
		}
		cancel()
	})
}
