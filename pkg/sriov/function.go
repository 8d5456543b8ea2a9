package sriov

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// returnPoll is how often an interface that is about to appear is looked for.
const returnPoll = 10 * time.Millisecond

// function is a VF and what it is a part of, as sysfs has it at one moment.
type function struct {
	address topology.Address
	pf      topology.Address
	// index is the VF's number on its PF.
	index int
}

// addressOf returns which VF a grant is about.
func addressOf(grant device.Grant) (topology.Address, error) {
	name, ok := device.PCIAddress(grant.Occupies)
	if !ok {
		return topology.Address{}, fmt.Errorf("it occupies %q, which names no VF: want %s", grant.Occupies, device.PCIThing("<PCI address>"))
	}
	address, err := topology.ParseAddress(name)
	if err != nil {
		return topology.Address{}, fmt.Errorf("what it occupies is no VF: %w", err)
	}
	return address, nil
}

// function looks a VF up. An error that is fs.ErrNotExist means that it is gone.
func (f *Family) function(a topology.Address) (function, error) {
	if !f.sysfs.Exists(a) {
		return function{}, fmt.Errorf("VF %s is no longer in the machine: delete the pod, so that another VF is allocated, and see whether its PF was reset: %w", a, fs.ErrNotExist)
	}
	target, err := os.Readlink(f.devicePath(a, "physfn"))
	if errors.Is(err, fs.ErrNotExist) {
		return function{}, fmt.Errorf("PCI function %s is no VF: the machine was changed since the device was published", a)
	}
	if err != nil {
		return function{}, fmt.Errorf("find the PF of VF %s: %w", a, err)
	}
	pf, err := topology.ParseAddress(filepath.Base(target))
	if err != nil {
		return function{}, fmt.Errorf("find the PF of VF %s: %w", a, err)
	}
	index, err := f.indexOn(pf, a)
	if err != nil {
		return function{}, err
	}
	return function{address: a, pf: pf, index: index}, nil
}

func (f *Family) indexOn(pf, vf topology.Address) (int, error) {
	links, err := filepath.Glob(f.devicePath(pf, "virtfn*"))
	if err != nil {
		return 0, fmt.Errorf("list the VFs of PF %s: %w", pf, err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || filepath.Base(target) != vf.String() {
			continue
		}
		index, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(link), "virtfn"))
		if err != nil {
			return 0, fmt.Errorf("read the number of VF %s from %s: %w", vf, link, err)
		}
		return index, nil
	}
	return 0, fmt.Errorf("PF %s does not list VF %s: it may be changing at this moment", pf, vf)
}

func (f *Family) devicePath(a topology.Address, below ...string) string {
	return filepath.Join(append([]string{f.opts.SysfsRoot, "bus", "pci", "devices", a.String()}, below...)...)
}

// linkOf returns the interface of a function in a namespace, or nil.
func linkOf(ns kernel.Namespace, a topology.Address) (*kernel.Link, error) {
	links, err := ns.Links()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	return pick(links, a), nil
}

// pick returns the interface of a function. IPoIB has child interfaces of the
// same function, which stand on it and are made later. A pod can give those any
// index.
func pick(links []kernel.Link, a topology.Address) *kernel.Link {
	var found *kernel.Link
	for n, link := range links {
		if link.Device == a.String() && !link.IsRepresentor() && !standsOnOwn(links, link) && (found == nil || link.Index < found.Index) {
			found = &links[n]
		}
	}
	return found
}

// standsOnOwn tells whether an interface stands on another one of its function.
func standsOnOwn(links []kernel.Link, link kernel.Link) bool {
	return link.Lower != 0 && link.Lower != link.Index && slices.ContainsFunc(links, func(lower kernel.Link) bool {
		return lower.Index == link.Lower && lower.Device == link.Device
	})
}

// pickPF returns the interface through which a VF's settings are changed.
func pickPF(links []kernel.Link, fn function) *kernel.Link {
	for n, link := range links {
		if _, ok := link.VFs[fn.index]; ok && link.Device == fn.pf.String() {
			return &links[n]
		}
	}
	return pick(links, fn.pf)
}

// awaitLink waits for the interface of a function, which the kernel gives back
// some time after a network namespace has ended, or makes after a driver was
// bound. It returns nil if there is none in time.
func (f *Family) awaitLink(ctx context.Context, ns kernel.Namespace, a topology.Address) (*kernel.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, f.opts.ReturnWait)
	defer cancel()
	for {
		link, err := linkOf(ns, a)
		if err != nil || link != nil {
			return link, err
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(returnPoll):
		}
	}
}

// apartName returns a name for a VF's interface on its way between namespaces
// that nobody else would choose, and that is free among the interfaces given.
func apartName(a topology.Address, taken ...[]kernel.Link) string {
	base := fmt.Sprintf("vf%04x%02x%02x%x", a.Domain, a.Bus, a.Device, a.Function)
	name := base
	for n := 'a'; n <= 'z' && nameTaken(name, a, taken...); n++ {
		name = base[:min(len(base), maxName-1)] + string(n)
	}
	return name
}

// maxName is how long the name of an interface can be.
const maxName = 15

// nameTaken tells whether a VF's interface cannot have a name because an
// interface has it: another one, or the VF's own as one of its further names.
func nameTaken(name string, a topology.Address, lists ...[]kernel.Link) bool {
	for _, links := range lists {
		for _, link := range links {
			if link.Name == name && link.Device != a.String() || slices.Contains(link.AltNames, name) {
				return true
			}
		}
	}
	return false
}
