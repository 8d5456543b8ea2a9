package registrytrust

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

// dataLink is the link to the version of a ConfigMap or Secret that holds now,
// in every folder in which kubelet mounts one.
const dataLink = "..data"

// settle is how long files may still change after the first did, where they
// are not changed at once.
const settle = 100 * time.Millisecond

// Run goes on until ctx is done. What it has written stays then: the next
// instance, after an update or a restart, takes it over as it is.
func (a *Agent) Run(ctx context.Context) {
	changed, stop := a.watch(ctx)
	defer stop()
	for {
		report := a.Round(ctx)
		pause := a.options.Interval
		if report.failing() {
			pause = min(pause, a.options.Retry)
		}
		// Not all nodes at once.
		next := time.NewTimer(wait.Jitter(pause, 0.1))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-next.C:
		}
		next.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// watch says when the configuration may have changed. Where the kernel gives no
// watch, the rounds see changes by themselves, later.
func (a *Agent) watch(ctx context.Context) (changed <-chan struct{}, stop func()) {
	log := klog.FromContext(ctx)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log.Error(err, "Changes of the configuration are seen only by the next round", "interval", a.options.Interval)
		return nil, func() {}
	}
	stop = func() { _ = watcher.Close() } // what was only read
	if err := watcher.Add(a.options.ConfigDir); err != nil {
		log.Error(err, "Changes of the configuration are seen only by the next round", "configDir", a.options.ConfigDir, "interval", a.options.Interval)
		return nil, stop
	}
	out := make(chan struct{}, 1)
	go forward(ctx, watcher, out)
	return out, stop
}

// forward makes one message of many changes.
func forward(ctx context.Context, watcher *fsnotify.Watcher, out chan<- struct{}) {
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case event, ok := <-watcher.Events:
			if !ok {
				return
			}
			klog.FromContext(ctx).V(5).Info("The configuration's folder changed", "file", filepath.Base(event.Name), "op", event.Op.String())
			if settled == nil {
				settled = time.After(settle)
			}
		case err, ok := <-watcher.Errors:
			if !ok {
				return
			}
			// Events were lost, perhaps the one that counts.
			klog.FromContext(ctx).Error(err, "Watching the configuration")
			settled = time.After(settle)
		case <-settled:
			settled = nil
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}
}
