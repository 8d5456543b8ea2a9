package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/selection"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// poll is how often is looked for what a driver is about to make.
const poll = 20 * time.Millisecond

// task is one PF, as it was found, and what is wanted of it.
type task struct {
	*Provisioner
	pf     nic.PF
	wanted selection.Wanted
}

// ErrNumber means that a PF has, or could have, another number of VFs than
// wanted, which is not ours to change.
var ErrNumber = errors.New("its number of VFs is not as configured")

// check returns an error for what cannot be done.
func (t task) check() error {
	if t.wanted.NumVFs == nil || t.pf.Driver == "" {
		return nil
	}
	number, has := *t.wanted.NumVFs, t.pf.NumVFs
	switch {
	case number == has:
		return nil
	case number > t.pf.TotalVFs:
		return fmt.Errorf("%w: numVFs is %d, and the NIC allows %d at most: raise the limit in its firmware, or lower numVFs", ErrNumber, number, t.pf.TotalVFs)
	case t.wanted.ExternallyManaged:
		return fmt.Errorf("%w: it has %d VFs and numVFs is %d: have whatever makes the VFs make as many, or correct numVFs", ErrNumber, has, number)
	case has > 0:
		return fmt.Errorf("%w: it has %d VFs and numVFs is %d; VFs that exist are never removed: drain the node and write 0 to sriov_numvfs, or correct numVFs", ErrNumber, has, number)
	}
	return nil
}

// needed tells whether there is anything to do.
func (t task) needed() bool {
	if t.pf.Driver == "" || t.pf.Driver == vfio.Driver {
		return false
	}
	return t.makes() || t.setsMTU() || len(t.nameless()) > 0
}

// makes tells whether VFs are to be made.
func (t task) makes() bool {
	return t.wanted.NumVFs != nil && !t.wanted.ExternallyManaged && t.pf.NumVFs == 0 && *t.wanted.NumVFs > 0 && t.check() == nil
}

// do brings the PF to what is wanted, as far as it goes. Each step begins with
// what the one before has made: a driver that is bound anew gives its interface
// the default MTU.
func (t task) do(ctx context.Context) error {
	var err error
	if t.makes() {
		if err := t.make(ctx); err != nil {
			return err
		}
		if t.pf, err = t.look(ctx); err != nil {
			return err
		}
	}
	var named error
	if len(t.nameless()) > 0 {
		named = t.nameAll(ctx)
		if t.pf, err = t.look(ctx); err != nil {
			return errors.Join(named, err)
		}
	}
	return errors.Join(named, t.setMTU(ctx))
}

// look reads the PF anew.
func (t task) look(ctx context.Context) (nic.PF, error) {
	machine, _, err := nic.Scan(ctx, nic.Options{SysfsRoot: t.opts.SysfsRoot, Host: t.opts.Host})
	if err != nil {
		return nic.PF{}, err
	}
	for _, pf := range machine.PFs {
		if pf.Address == t.pf.Address {
			return pf, nil
		}
	}
	return nic.PF{}, errors.New("it has vanished while it was set up: see the kernel's log")
}

// make makes the VFs and waits for their drivers and interfaces. The PF comes
// up first, because some drivers (igbvf) look at it only when they start, and
// its MTU bounds that of the VFs.
func (t *task) make(ctx context.Context) error {
	if err := t.awaitPF(ctx); err != nil {
		return err
	}
	if link := t.pf.Netdev; link != nil {
		if t.wanted.MTU != nil && link.MTU != *t.wanted.MTU {
			if err := t.opts.Host.SetMTU(link.Index, *t.wanted.MTU); err != nil {
				return fmt.Errorf("mtu: set %d on %s: %w", *t.wanted.MTU, link.Name, err)
			}
		}
		if !link.Up {
			if err := t.opts.Host.SetUp(link.Index); err != nil {
				return fmt.Errorf("set %s up, which must be before VFs are made: %w", link.Name, err)
			}
		}
	}
	number := strconv.Itoa(*t.wanted.NumVFs)
	// Before they are there: what is not noted would stay for ever.
	if err := t.opts.Notes.write(t.pf.Address, *t.wanted.NumVFs); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Making VFs", "pf", t.pf.Name(), "pciAddress", t.pf.Address, "number", number)
	if err := t.opts.Write(t.path(t.pf.Address, "sriov_numvfs"), number); err != nil {
		return fmt.Errorf("make %s VFs: %w: see the kernel's log, and whether the kernel argument pci=realloc is set", number, err)
	}
	return t.await(ctx, "the VFs' drivers and interfaces", t.missing)
}

// awaitPF waits for the interface of a PF whose driver has just been bound, as
// after a rescan of the PCI bus. A PF that shows none in time is used as it is,
// and so is one that has an RDMA device in place of an interface.
func (t *task) awaitPF(ctx context.Context) error {
	if t.pf.Netdev != nil || t.pf.Driver == "" || t.pf.Driver == vfio.Driver {
		return nil
	}
	err := t.await(ctx, "the PF's interface", func() (string, error) {
		if _, err := os.Stat(t.path(t.pf.Address, "infiniband")); err == nil {
			return "", nil
		}
		pf, err := t.look(ctx)
		if err != nil || pf.Netdev == nil {
			return "it", err
		}
		t.pf = pf
		return "", nil
	})
	if err != nil {
		klog.FromContext(ctx).Info("PF shows no interface, its VFs are made without setting it up", "pciAddress", t.pf.Address, "reason", err.Error())
	}
	return ctx.Err()
}

// missing says what of the VFs is not there yet.
func (t task) missing() (string, error) {
	links, err := t.opts.Host.Links()
	if err != nil {
		return "", err
	}
	for index := range *t.wanted.NumVFs {
		target, err := os.Readlink(t.path(t.pf.Address, "virtfn"+strconv.Itoa(index)))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Sprintf("VF %d", index), nil
		}
		if err != nil {
			return "", fmt.Errorf("find VF %d: %w", index, err)
		}
		if what := t.missingOf(filepath.Base(target), links); what != "" {
			return fmt.Sprintf("%s of VF %d (%s)", what, index, filepath.Base(target)), nil
		}
	}
	return "", nil
}

func (t task) missingOf(vf string, links []kernel.Link) string {
	address, err := topology.ParseAddress(vf)
	if err != nil || !t.probes() {
		return ""
	}
	driver, err := os.Readlink(t.path(address, "driver"))
	if err != nil {
		return "the driver"
	}
	if filepath.Base(driver) == vfio.Driver {
		return ""
	}
	for _, link := range links {
		if link.Device == vf {
			return ""
		}
	}
	if t.pf.LinkType == nic.InfiniBand {
		// Its interface, IPoIB, is not always wanted, and what counts is RDMA.
		if _, err := os.Stat(t.path(address, "infiniband")); err == nil {
			return ""
		}
	}
	return "the interface"
}

// probes tells whether the kernel binds drivers to new VFs by itself.
func (t task) probes() bool {
	data, err := os.ReadFile(t.path(t.pf.Address, "sriov_drivers_autoprobe"))
	return err != nil || strings.TrimSpace(string(data)) != "0"
}

// await waits until nothing is missing any more.
func (t task) await(ctx context.Context, what string, missing func() (string, error)) error {
	limit := time.NewTimer(t.opts.Wait)
	defer limit.Stop()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		thing, err := missing()
		if err != nil || thing == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-limit.C:
			return fmt.Errorf("%s did not appear within %s: %s is missing: see whether the kernel has the VFs' driver, and the kernel's log", what, t.opts.Wait, thing)
		case <-ticker.C:
		}
	}
}

// setsMTU tells whether the PF, or a VF that can be changed, has another MTU
// than wanted.
func (t task) setsMTU() bool {
	if t.wanted.MTU == nil || t.pf.Netdev == nil {
		return false
	}
	if t.pf.Netdev.MTU != *t.wanted.MTU {
		return true
	}
	for _, vf := range t.pf.VFs {
		if vf.Netdev != nil && vf.Netdev.MTU != *t.wanted.MTU && t.free(context.Background(), vf.Address) {
			return true
		}
	}
	return false
}

// free tells whether nobody has a VF.
func (t task) free(ctx context.Context, vf topology.Address) bool {
	release, free, err := t.opts.Hold(ctx, vf)
	if err != nil || !free {
		return false
	}
	release()
	return true
}

func (t task) setMTU(ctx context.Context) error {
	if !t.setsMTU() {
		return nil
	}
	mtu, link := *t.wanted.MTU, t.pf.Netdev
	if link.MTU != mtu {
		if err := t.opts.Host.SetMTU(link.Index, mtu); err != nil {
			return fmt.Errorf("mtu: set %d on %s: %w", mtu, link.Name, err)
		}
	}
	var errs []error
	for _, vf := range t.pf.VFs {
		if vf.Netdev == nil || vf.Netdev.MTU == mtu {
			continue
		}
		err := t.holding(ctx, vf.Address, func() error { return t.opts.Host.SetMTU(vf.Netdev.Index, mtu) })
		if err != nil {
			errs = append(errs, fmt.Errorf("mtu: set %d on %s, VF %d: %w", mtu, vf.Netdev.Name, vf.Index, err))
		}
	}
	return errors.Join(errs...)
}

// holding changes a VF if nobody has it, and keeps claims away meanwhile.
func (t task) holding(ctx context.Context, vf topology.Address, change func() error) error {
	release, free, err := t.opts.Hold(ctx, vf)
	if err != nil || !free {
		return err
	}
	defer release()
	return change()
}

func (t task) path(address topology.Address, below ...string) string {
	return filepath.Join(append([]string{t.opts.SysfsRoot, "bus", "pci", "devices", address.String()}, below...)...)
}
