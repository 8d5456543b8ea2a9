package driver

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// quietAfter is how long the plugin must have had nothing to do before it gives
// back memory. It has nothing to do most of the time.
const quietAfter = 30 * time.Second

// giveMemoryBack returns to the system what the last claims, or the start, have
// left, whenever the plugin comes to rest. Go by itself keeps it for the work
// to come, which a node would rather give to its pods.
func giveMemoryBack(ctx context.Context, used signal) {
	timer := time.NewTimer(quietAfter)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-used:
			timer.Reset(quietAfter)
		case <-timer.C:
			// What is in a pool outlives one collection of garbage.
			runtime.GC()
			debug.FreeOSMemory()
		}
	}
}
