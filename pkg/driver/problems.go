package driver

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// problem is one thing that is wrong with a device.
type problem struct {
	device.Problem
	// since is when it was first seen. It is zero for what was there at the
	// first look: only the API knows then how long it has been.
	since time.Time
}

// diagnose returns the device with its problems. Those that it had at the last
// look go on.
func (i *inventory) diagnose(d owned) owned {
	i.mu.RLock()
	defer i.mu.RUnlock()
	var now time.Time
	if i.byName != nil {
		now = time.Now()
	}
	byReason := map[string]problem{}
	for _, p := range d.Problems {
		merged, ok := byReason[p.Reason]
		switch {
		case !ok:
			merged = problem{Problem: p, since: i.byName[d.Name].began(p.Reason, now)}
		case !strings.Contains(merged.Message, p.Message):
			merged.Message += "; " + p.Message
		}
		byReason[p.Reason] = merged
	}
	d.problems = slices.SortedFunc(maps.Values(byReason), func(a, b problem) int { return cmp.Compare(a.Reason, b.Reason) })
	return d
}

// began returns when the device got a problem that it has now.
func (d owned) began(reason string, now time.Time) time.Time {
	if p, ok := d.problem(reason); ok {
		return p.since
	}
	return now
}

func (d owned) problem(reason string) (problem, bool) {
	n := slices.IndexFunc(d.problems, func(p problem) bool { return p.Reason == reason })
	if n < 0 {
		return problem{}, false
	}
	return d.problems[n], true
}

// complaint says in one line what is wrong with a device, or nothing if it is
// healthy.
func (d owned) complaint() string {
	var all []string
	for _, p := range d.problems {
		all = append(all, p.Reason+": "+p.Message)
	}
	return strings.Join(all, "; ")
}

// tellOfChanges logs and counts which problems have begun and which are gone.
func (i *inventory) tellOfChanges(ctx context.Context, before, after map[string]owned) {
	logger := klog.FromContext(ctx)
	for name, d := range after {
		for _, p := range d.problems {
			if _, had := before[name].problem(p.Reason); !had {
				i.metrics.problemBegan(d, p.Reason)
				logger.Info("A device has a problem, no claim gets it any more", "family", d.owner(), "device", name, "reason", p.Reason, "problem", p.Message)
			}
		}
	}
	for name, d := range before {
		for _, p := range d.problems {
			now, there := after[name]
			if _, has := now.problem(p.Reason); !has {
				i.metrics.problemEnded(d, p.Reason)
				logger.Info("A device's problem is gone", "family", d.owner(), "device", name, "reason", p.Reason, "deviceIsThere", there)
			}
		}
	}
}
