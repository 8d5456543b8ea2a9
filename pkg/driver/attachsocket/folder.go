package attachsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	suffix = ".sock"
	// newPrefix begins the name of a socket on which nobody listens yet.
	newPrefix = "."
	// network is the kind of socket: it keeps packets apart.
	network = "unixpacket"
	// dialTimeout is for a system that is too busy for its own sockets.
	dialTimeout = time.Second
)

// folder is an open folder of sockets. Sockets are reached through its
// descriptor, because the path of a socket may have 107 characters only.
type folder struct{ dir *os.File }

func openFolder(path string) (folder, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	return folder{dir}, err
}

func (f folder) close() error { return f.dir.Close() }

// address is how a socket of the folder is called while the folder is open.
func (f folder) address(name string) *net.UnixAddr {
	return &net.UnixAddr{Net: network, Name: fmt.Sprintf("/proc/self/fd/%d/%s", f.dir.Fd(), name)}
}

func (f folder) path(name string) string { return filepath.Join(f.dir.Name(), name) }

// lock keeps other processes from adding or removing sockets until unlock is
// called: whoever finds a socket dead must not remove the one that has taken
// its name in between.
func (f folder) lock() (unlock func() error, err error) {
	fd := int(f.dir.Fd())
	for {
		err := unix.Flock(fd, unix.LOCK_EX)
		if err == nil {
			return func() error { return unix.Flock(fd, unix.LOCK_UN) }, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("lock %s: %w", f.dir.Name(), err)
		}
	}
}

func (f folder) dial(ctx context.Context, name string) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	address := f.address(name)
	return (&net.Dialer{}).DialUnix(ctx, network, nil, address)
}

// removeDead removes a socket on which nobody listens.
func (f folder) removeDead(ctx context.Context, name string) (removed bool, err error) {
	conn, err := f.dial(ctx, name)
	if err == nil {
		_ = conn.Close() // only the dialling mattered
		return false, nil
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return false, nil
	}
	if err := os.Remove(f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("remove the socket of an instance that is gone: %w", err)
	}
	return true, nil
}

// Sockets returns the names of the sockets in a folder, that of the instance
// that was started last in front. Instances may be dead. No folder has none.
func Sockets(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	started := map[string]time.Time{}
	var names []string
	for _, entry := range entries {
		if !isSocket(entry) || strings.HasPrefix(entry.Name(), newPrefix) {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			continue // removed in between
		}
		started[entry.Name()] = info.ModTime()
		names = append(names, entry.Name())
	}
	slices.SortStableFunc(names, func(a, b string) int { return started[b].Compare(started[a]) })
	return names, nil
}

func isSocket(entry fs.DirEntry) bool {
	return entry.Type()&fs.ModeSocket != 0 && strings.HasSuffix(entry.Name(), suffix)
}

// RemoveDead removes the sockets of instances that were killed, and returns
// their names.
func RemoveDead(ctx context.Context, path string) (_ []string, err error) {
	f, err := openFolder(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	unlock, err := f.lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, entry := range entries {
		if !isSocket(entry) {
			continue
		}
		dead, err := f.removeDead(ctx, entry.Name())
		if err != nil {
			return removed, err
		}
		if dead {
			removed = append(removed, entry.Name())
		}
	}
	return removed, nil
}
