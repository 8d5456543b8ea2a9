package gpu

import (
	"context"
	"time"
)

// Watch looks for changes until ctx is done, and calls changed when Devices
// would answer differently from its last answer.
//
// The driver's files are looked at often, because that is cheap; file-system
// events would not help, since a driver container appears as a mount, which
// raises none. So is whether the GPUs are on the PCI bus. All GPUs are looked at
// when that differs, when the last look failed, and now and then.
func (f *Family) Watch(ctx context.Context, changed func()) {
	poll := time.NewTicker(f.opts.Poll)
	defer poll.Stop()
	var told uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		case <-poll.C:
			if f.due() {
				if _, err := f.refresh(ctx); err != nil {
					return
				}
			}
		}
		if generation, news := f.news(told); news {
			told = generation
			changed()
		}
	}
}

// due tells whether the whole machine should be looked at.
func (f *Family) due() bool {
	s := f.current()
	if s.findings == nil || s.err != nil || time.Since(s.taken) >= f.opts.Resync {
		return true
	}
	driver, _ := f.opts.findDriver()
	return driver != s.driver || f.busChanged(s)
}

// busChanged tells whether a GPU has left the PCI bus since it was looked at, or
// has come back to it.
func (f *Family) busChanged(s snapshot) bool {
	for address, g := range s.usable {
		if f.gone(address, g) {
			return true
		}
	}
	for address, fault := range s.faulty {
		if fault.Reason == ReasonNotOnBus && f.sysfs.Exists(address) {
			return true
		}
	}
	return false
}

// news tells whether there is an answer that neither Devices gave nor Watch
// announced.
func (f *Family) news(told uint64) (uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	generation := f.latest.generation
	return generation, generation != f.answered && generation != told
}

func (f *Family) wakeWatch() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}
