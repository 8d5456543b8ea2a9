package sriov

import (
	"context"
	"errors"
	"fmt"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/provision"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Reasons of a [device.Problem] of a VF.
const (
	// ReasonLinkDown: the PF is not up, or its link does not work.
	ReasonLinkDown = "LinkDown"
	// ReasonDriverUnbound: no driver is bound to the VF.
	ReasonDriverUnbound = "DriverUnbound"
	// ReasonInterfaceMissing: the VF's driver shows no interface on the host,
	// and no claim has it.
	ReasonInterfaceMissing = "InterfaceMissing"
	// ReasonPortNotActive: the InfiniBand port of the PF or of the VF is not
	// active.
	ReasonPortNotActive = "InfiniBandPortNotActive"
	// ReasonZeroGUID: the InfiniBand VF has no GUID.
	ReasonZeroGUID = "ZeroGUID"
	// ReasonFellBack: the port is an InfiniBand one by all that is known, and
	// runs as Ethernet.
	ReasonFellBack = "InfiniBandFellBackToEthernet"
)

// Reasons of a [device.Fault] of a PF, beside those of package nic.
const (
	// ReasonPFDriverMissing: no driver is bound to the PF.
	ReasonPFDriverMissing = "PFDriverMissing"
	// ReasonPFInterfaceMissing: the PF's driver shows no interface on the host.
	ReasonPFInterfaceMissing = "PFInterfaceMissing"
	// ReasonNumVFs: the PF has another number of VFs than configured.
	ReasonNumVFs = "WrongNumberOfVFs"
	// ReasonProvisioning: the PF could not be set up as configured.
	ReasonProvisioning = "ProvisioningFailed"
)

// portActive is the state of an InfiniBand port that works.
const portActive = "ACTIVE"

// layerEthernet is the link layer of an RDMA port over Ethernet.
const layerEthernet = "Ethernet"

// problems returns what is wrong with a VF now.
func (f *Family) problems(ctx context.Context, v vf, machine nic.Machine) []device.Problem {
	var problems []device.Problem
	add := func(reason, message string) {
		if message != "" {
			problems = append(problems, device.Problem{Reason: reason, Message: message})
		}
	}
	add(ReasonLinkDown, linkDown(v.pf))
	add(ReasonPortNotActive, portNotActive(v))
	add(ReasonZeroGUID, zeroGUID(v))
	add(ReasonFellBack, f.fellBack(v, machine))
	if v.Driver == "" && !f.beingChanged(ctx, v) {
		add(ReasonDriverUnbound, fmt.Sprintf("no kernel driver is bound to VF %s (VF %d of %s): bind its network driver, or vfio-pci, by writing the address to /sys/bus/pci/drivers_probe, and see the kernel's log", v.Address, v.Index, pfName(v.pf)))
	}
	add(ReasonInterfaceMissing, interfaceMissing(v))
	return problems
}

// beingChanged tells whether a VF that a claim has is just being set up or
// given back, when it is without a driver for a moment.
func (f *Family) beingChanged(ctx context.Context, v vf) bool {
	if !v.used {
		return false
	}
	now, cancel := context.WithCancelCause(ctx)
	cancel(errBusy)
	unlock, err := f.journal.Lock(now, v.Address)
	if err != nil {
		return errors.Is(err, errBusy)
	}
	unlock()
	return false
}

// linkDown looks at the PF's interface. For InfiniBand the port's state tells
// all, for its interface is there for IP alone and may be down.
func linkDown(pf nic.PF) string {
	switch {
	case pf.Netdev == nil || pf.LinkType == nic.InfiniBand && pf.RDMA != nil:
		return ""
	case !pf.Netdev.Up:
		return fmt.Sprintf("PF %s is not up, and its VFs get no link: set it up with \"ip link set %s up\", or have the plugin do so by numVFs", pfName(pf), pf.Name())
	case !pf.Netdev.Carrier:
		return fmt.Sprintf("PF %s has no link: look at its cable and at the switch, and at what \"ethtool %s\" says", pfName(pf), pf.Name())
	}
	return ""
}

func portNotActive(v vf) string {
	if v.pf.LinkType != nic.InfiniBand {
		return ""
	}
	if r := v.pf.RDMA; r != nil && r.State != "" && r.State != portActive {
		return fmt.Sprintf("the InfiniBand port of PF %s (%s) is %s and not ACTIVE: look at its cable, and whether a subnet manager runs in the fabric", pfName(v.pf), r.Name, r.State)
	}
	if r := v.RDMA; r != nil && r.State != "" && r.State != portActive {
		return fmt.Sprintf("the InfiniBand port of VF %s (%s) is %s and not ACTIVE: it needs a GUID, the policy Follow, and a subnet manager that allows virtual ports", v.Address, r.Name, r.State)
	}
	return ""
}

func zeroGUID(v vf) string {
	r := v.RDMA
	// Without a state the device is in another network namespace, and nobody
	// here knows its GUID.
	if v.pf.LinkType != nic.InfiniBand || r == nil || r.State == "" || !kernel.IsZero(r.NodeGUID) {
		return ""
	}
	return fmt.Sprintf("InfiniBand VF %s (%s) has no GUID, so nothing can reach it: have the plugin give it one by numVFs in a selector, or set node and port of %s and bind the VF anew", v.Address, r.Name, v.pf.Address)
}

func interfaceMissing(v vf) string {
	switch {
	case v.used || v.Netdev != nil || v.Driver == "" || v.Driver == vfio.Driver:
		return ""
	case v.pf.LinkType == nic.InfiniBand && v.RDMA != nil:
		return ""
	}
	return fmt.Sprintf("VF %s (VF %d of %s) shows no interface on the host, and no claim has it: something else has moved it to another network namespace, or its driver %s has failed, which the kernel's log then tells", v.Address, v.Index, pfName(v.pf), v.Driver)
}

// fellBack finds ports that run as Ethernet and should be InfiniBand ones, as
// happens when firmware and driver do not fit. They should be
//   - if a selector that names the PF or the VF allows InfiniBand alone, or
//   - if, of at least two other PFs with VFs and on cards of the same model, more
//     than half are InfiniBand ones, and no selector that chooses the VF names
//     its link type.
//
// Ports without VFs do not count: on these machines they are for storage, where
// a card with one port of each kind is what it should be.
func (f *Family) fellBack(v vf, machine nic.Machine) string {
	const advice = `see with "mlxconfig -d %s query LINK_TYPE_P1" what the port is set to, and whether the firmware fits the driver`
	ethernetVF := v.RDMA != nil && v.RDMA.LinkLayer == layerEthernet
	if v.pf.LinkType == nic.InfiniBand {
		if ethernetVF {
			return fmt.Sprintf("VF %s runs as Ethernet on the InfiniBand port %s: "+advice, v.Address, pfName(v.pf), v.pf.Address)
		}
		return ""
	}
	if v.pf.LinkType != nic.Ether {
		return ""
	}
	if f.selection.Expects(v.pf, v.free()) == nic.InfiniBand {
		return fmt.Sprintf("PF %s runs as Ethernet, and its selector allows InfiniBand alone: "+advice, pfName(v.pf), v.pf.Address)
	}
	infiniBand, others := 0, 0
	for _, pf := range machine.PFs {
		if pf.Address == v.pf.Address || len(pf.VFs) == 0 || pf.Vendor != v.pf.Vendor || pf.DeviceID != v.pf.DeviceID || pf.Model != v.pf.Model {
			continue
		}
		others++
		if pf.LinkType == nic.InfiniBand {
			infiniBand++
		}
	}
	if others < 2 || 2*infiniBand <= others || f.selection.Accepts(v.pf, v.free()) {
		return ""
	}
	return fmt.Sprintf("PF %s runs as Ethernet, while %d of %d other such NICs run as InfiniBand: "+advice+"; if it is meant to be Ethernet, name it in a selector with linkTypes [ether]", pfName(v.pf), infiniBand, others, v.pf.Address)
}

// pfFaults returns what is wrong with NICs, of those that the configuration is
// about.
func (f *Family) pfFaults(machine nic.Machine, failed map[topology.Address]error) []device.Fault {
	var faults []device.Fault
	for _, pf := range machine.PFs {
		add := func(reason string, err error) {
			faults = append(faults, device.Fault{Subject: "PF " + pfName(pf), Reason: reason, Err: err})
		}
		if err := failed[pf.Address]; errors.Is(err, provision.ErrNumber) {
			add(ReasonNumVFs, err)
		} else if err != nil {
			add(ReasonProvisioning, err)
		}
		if !f.selection.Considers(pf) {
			continue
		}
		switch {
		case pf.Driver == "":
			add(ReasonPFDriverMissing, errors.New("no kernel driver is bound to it, so it can have no VFs: load its driver (for a ConnectX mlx5_core) and see the kernel's log; a driver package that does not fit the kernel cannot be loaded"))
		case pf.Driver != vfio.Driver && pf.Netdev == nil && (pf.RDMA == nil || pf.LinkType != nic.InfiniBand):
			add(ReasonPFInterfaceMissing, fmt.Errorf("it shows no interface on the host, although driver %s is bound to it: its driver has failed, which the kernel's log then tells, or something has moved the interface to another network namespace", pf.Driver))
		}
	}
	return faults
}

// pfName names a PF for people.
func pfName(pf nic.PF) string {
	if pf.Name() == "" {
		return pf.Address.String()
	}
	return fmt.Sprintf("%s (%s)", pf.Name(), pf.Address)
}
