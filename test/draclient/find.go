package draclient

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// findRetry is how soon a socket is tried again: no event tells when somebody
// begins to listen on one.
const findRetry = 10 * time.Millisecond

// Find waits for a plugin of the driver in the folder in which plugins put
// their registrar sockets, and registers it. Sockets on which nobody listens,
// as a killed plugin leaves them, are passed over. Of several plugins of the
// driver the one with the newest socket is taken.
func Find(ctx context.Context, registrarDir, driver string) (_ *Plugin, err error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch for plugins: %w", err)
	}
	defer func() { err = errors.Join(err, watcher.Close()) }()
	if err := os.MkdirAll(registrarDir, 0o750); err != nil {
		return nil, fmt.Errorf("watch for plugins: %w", err)
	}
	if err := watcher.Add(registrarDir); err != nil {
		return nil, fmt.Errorf("watch %s for plugins: %w", registrarDir, err)
	}
	for {
		p, seen, err := newest(ctx, registrarDir, driver)
		if err != nil || p != nil {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a plugin of driver %s in %s: %w; plugins there: %v", driver, registrarDir, context.Cause(ctx), seen)
		case err := <-watcher.Errors:
			return nil, fmt.Errorf("watch %s for plugins: %w", registrarDir, err)
		case <-watcher.Events:
		case <-time.After(findRetry):
		}
	}
}

// newest returns the driver's plugin with the newest socket, or nil and what
// was there instead.
func newest(ctx context.Context, dir, driver string) (*Plugin, []string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("look for plugins: %w", err)
	}
	var (
		seen []string
		best *Plugin
		last fs.FileInfo
	)
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || info.Mode()&fs.ModeSocket == 0 {
			continue // removed in between, or none of a plugin
		}
		if last != nil && info.ModTime().Before(last.ModTime()) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		if !listens(ctx, path) {
			seen = append(seen, entry.Name()+" (nobody listens)")
			continue
		}
		p, err := Register(ctx, path)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, nil, err
		case err != nil: // going away, or not for us
			seen = append(seen, entry.Name()+" ("+err.Error()+")")
			continue
		case p.Driver != driver:
			seen = append(seen, entry.Name()+" (driver "+p.Driver+")")
			if err := p.Close(); err != nil {
				return nil, nil, err
			}
			continue
		}
		if best != nil {
			if err := best.Close(); err != nil {
				return nil, nil, err
			}
		}
		best, last = p, info
	}
	return best, seen, nil
}

func listens(ctx context.Context, socket string) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err == nil {
		_ = conn.Close() // only the dialling mattered
	}
	return !errors.Is(err, unix.ECONNREFUSED)
}
