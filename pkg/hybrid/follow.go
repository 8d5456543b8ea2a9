package hybrid

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/klog/v2"
)

// lookEvery is how often the file is read if the kernel tells of no change.
const lookEvery = time.Minute

// follow calls changed with the content of a file, or why it cannot be read, at once
// and whenever that is different, until ctx is done. The folder is watched rather
// than the file, for kubelet replaces links when a ConfigMap changes.
func follow(ctx context.Context, path string, changed func([]byte, error)) {
	var events <-chan fsnotify.Event
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer func() { _ = watcher.Close() }() // nothing was written to it
		err = watcher.Add(filepath.Dir(path))
		events = watcher.Events
	}
	if err != nil {
		klog.FromContext(ctx).Info("The kernel cannot tell when the configuration changes; it is read now and then", "file", path, "every", lookEvery, "err", err)
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var last []byte
	lastErr := ""
	for first := true; ; first = false {
		content, err := os.ReadFile(path)
		text := ""
		if err != nil {
			err = fmt.Errorf("read the configuration: %w", err)
			text = err.Error()
		}
		if first || text != lastErr || !bytes.Equal(content, last) {
			last, lastErr = content, text
			changed(content, err)
		}
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if !ok {
				events = nil
			}
		case <-ticker.C:
		}
	}
}
