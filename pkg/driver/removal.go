package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/cdifiles"
)

const (
	// removalPoll is how often is looked whether a node is empty.
	removalPoll = 500 * time.Millisecond
	// removalSettle is how long nothing may be in the way of a removal. A
	// scheduler that has not heard yet that the slices are gone may still give a
	// device away, and kubelet then has the claim prepared.
	removalSettle = 5 * time.Second
	// removalAbandoned is the AbandonedInterval of a driver that is removed.
	removalAbandoned = 2 * time.Second
)

// removal is whether the driver is being taken off its node.
type removal struct {
	mu       sync.Mutex
	inTheWay error
}

// nothingPublished has the slices of the pool removed at once, which no pool at
// all would not.
func nothingPublished(pool string) resourceslice.DriverResources {
	return resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{pool: {}}}
}

// Emptied is for a driver that is removed, beside [Driver.Run]: it returns when
// the node publishes nothing any more and no claim has anything on it, and an
// error only when ctx is done. Until then claims are served as ever, and
// [Driver.InTheWay] says what is missing.
func (d *Driver) Emptied(ctx context.Context) error {
	settle := d.options.RemovalSettle
	var free time.Time
	told := ""
	for {
		err := d.whatIsLeft(ctx)
		d.removal.set(err)
		if text := fmt.Sprint(err); err != nil && text != told {
			told = text
			klog.FromContext(ctx).Info("Not removed yet", "reason", text)
		}
		switch {
		case err != nil:
			free = time.Time{}
		case free.IsZero():
			free = time.Now()
		case time.Since(free) >= settle:
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(min(removalPoll, max(settle, time.Millisecond))):
		}
	}
}

// InTheWay says why the driver cannot be removed yet, or returns nil.
func (d *Driver) InTheWay() error {
	d.removal.mu.Lock()
	defer d.removal.mu.Unlock()
	return d.removal.inTheWay
}

func (r *removal) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inTheWay = err
}

// nothingReserved returns an error that names a device that pods have as an
// extended resource, or may have.
func (d *Driver) nothingReserved() error {
	holdings, _, err := d.store.Holdings()
	if err != nil {
		return err
	}
	for _, thing := range slices.Sorted(maps.Keys(holdings)) { // the same one as long as it is held
		if h := holdings[thing]; h.DevicePlugin != nil {
			return fmt.Errorf("device %q is held by %s: delete the pods that use it", h.Device.Device, h.Holder())
		}
	}
	for _, dev := range d.inventory.devices() {
		if d.options.Reserve.Reserves(dev.Device) {
			return fmt.Errorf("device %q may be a pod's as an extended resource, which its unreadable file does not tell: it is waited for kubelet's answer who uses it", dev.Name)
		}
	}
	return nil
}

// whatIsLeft returns an error that names the claims that have something on the
// node, or the slices that the API still has.
func (d *Driver) whatIsLeft(ctx context.Context) error {
	claims, err := d.knownClaims()
	if err != nil {
		return err
	}
	if len(claims) > 0 {
		var names []string
		for _, c := range claims {
			names = append(names, c.String())
		}
		slices.Sort(names)
		return fmt.Errorf("claims are still prepared on this node: %s: delete the pods that use them", strings.Join(names, ", "))
	}
	if err := d.nothingReserved(); err != nil {
		return err
	}
	published, err := d.publishedSlices(ctx)
	if apierrors.IsNotFound(err) {
		return nil // an API server without ResourceSlices
	}
	if err != nil {
		return fmt.Errorf("see whether nothing is published any more: %w", err)
	}
	if n := len(published); n > 0 {
		return fmt.Errorf("the API still has %d ResourceSlices of this node", n)
	}
	return nil
}

// Belongings are what a driver has written on its node. All are mandatory, and
// as in [Options].
type Belongings struct {
	DriverName                    string
	DataDir, RegistrarDir, CDIDir string
}

// Any tells whether there are any, but for sockets.
func (b Belongings) Any() (bool, error) {
	_, err := os.Lstat(b.DataDir)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for what the driver has written: %w", err)
	}
	uids, err := cdifiles.New(b.CDIDir, b.DriverName).Claims()
	return len(uids) > 0, err
}

// AwaitAlone returns when no instance of the plugin listens on this node, which
// would make anew what is removed. Sockets that nobody listens on are removed.
func (b Belongings) AwaitAlone(ctx context.Context) error {
	for {
		alive, err := b.removeStaleSockets(ctx)
		if err != nil || alive == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another instance of the plugin serves %s: %w", alive, context.Cause(ctx))
		case <-time.After(removalPoll):
		}
	}
}

// removeStaleSockets returns the path of a socket on which somebody listens, if
// there is one.
func (b Belongings) removeStaleSockets(ctx context.Context) (alive string, err error) {
	for dir, prefix := range map[string]string{b.DataDir: "dra", b.RegistrarDir: b.DriverName + "-"} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("look for sockets: %w", err)
		}
		for _, entry := range entries {
			if entry.Type()&fs.ModeSocket == 0 || !strings.HasPrefix(entry.Name(), prefix) {
				continue
			}
			path := filepath.Join(dir, entry.Name())
			if !isStale(ctx, path) {
				if dir == b.DataDir { // in the other folder it may be that of a driver with a longer name
					alive = path
				}
				continue
			}
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", fmt.Errorf("remove a stale socket: %w", err)
			}
		}
	}
	return alive, nil
}

// Remove removes them, and nothing else. Repeating it is fine.
func (b Belongings) Remove() error {
	specs := cdifiles.New(b.CDIDir, b.DriverName)
	uids, err := specs.Claims()
	if err != nil {
		return err
	}
	var errs []error
	for _, uid := range uids {
		errs = append(errs, specs.Remove(uid))
	}
	if err := os.RemoveAll(b.DataDir); err != nil {
		errs = append(errs, fmt.Errorf("remove the plugin's data folder: %w: see what is in it, and whether something is mounted there", err))
	}
	return errors.Join(errs...)
}
