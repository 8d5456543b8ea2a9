package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// removeStaleSockets removes the sockets of instances that were killed. Each
// instance has sockets of its own, named after its pod, so nobody else would
// ever remove them, and kubelet would go on calling them.
//
// A socket of our own name on which somebody listens is another instance that
// was started with the same pod UID by mistake. We would take its sockets
// away, and it ours when it ends, so that is an error.
func (d *Driver) removeStaleSockets(ctx context.Context) error {
	for _, dir := range []struct{ path, prefix, own string }{
		{d.options.DataDir, "dra", d.pluginSocket()},
		{d.options.RegistrarDir, d.options.DriverName + "-", d.registrarSocket()},
	} {
		entries, err := os.ReadDir(dir.path)
		if err != nil {
			return fmt.Errorf("look for stale sockets: %w: see that --kubelet-root is kubelet's root folder, and mounted here", err)
		}
		for _, entry := range entries {
			if entry.Type()&fs.ModeSocket == 0 || !strings.HasPrefix(entry.Name(), dir.prefix) {
				continue
			}
			path := filepath.Join(dir.path, entry.Name())
			if !isStale(ctx, path) {
				if entry.Name() == dir.own {
					return fmt.Errorf("another plugin serves %s: end it, or give each a --pod-uid of its own (this one has %q)", path, d.options.PodUID)
				}
				continue
			}
			klog.FromContext(ctx).Info("Removing the socket of an instance that is gone", "path", path)
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove a stale socket: %w", err)
			}
		}
	}
	return nil
}

// isStale tells whether nobody listens on a socket any more.
func isStale(ctx context.Context, path string) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // only the dialling mattered
		return false
	}
	return errors.Is(err, unix.ECONNREFUSED)
}
