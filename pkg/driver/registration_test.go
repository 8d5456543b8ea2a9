package driver

import (
	"testing"
	"testing/synctest"
	"time"
)

// Kubelet deletes slices at moments that it tells nobody.
func TestSlicesAreLookedAfterForEverAndMoreOftenAfterARegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRestoring()
		defer r.ticker.Stop()
		ticks := func(during time.Duration) int {
			end := time.NewTimer(during)
			for n := 0; ; n++ {
				select {
				case <-end.C:
					return n
				case <-r.ticker.C:
					r.tick()
				}
			}
		}
		if n := ticks(time.Hour); n < 700 {
			t.Errorf("%d looks in an hour", n)
		}
		r.start()
		if n := ticks(restoreFor); n < 28 {
			t.Errorf("%d looks in the %v after a registration", n, restoreFor)
		}
		if n := ticks(time.Hour); n < 700 || n > 740 {
			t.Errorf("%d looks in the hour after that", n)
		}
	})
}
