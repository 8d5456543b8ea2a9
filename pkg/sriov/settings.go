package sriov

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"

	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
)

// The kernel's words for what a VfConfig names.
const (
	protocol8021q  = "802.1Q"
	protocol8021ad = "802.1ad"
	linkAuto       = "auto"
	// noAddress is what a PF says of a VF to which it has given none.
	noAddress = "00:00:00:00:00:00"
)

// setting is one thing that a PF can change of its VF.
type setting struct {
	// field is that of [v1alpha1.VfConfig], for errors.
	field string
	// take copies the setting from one set to another, if it is there.
	take func(from vfstate.Settings, to *vfstate.Settings)
	// zero is what a VF has on which nobody has set anything.
	zero vfstate.Settings
}

// settingsList is every setting, in the order in which they are changed: a
// trusted VF may do more, so trust comes first.
func settingsList() []setting {
	return []setting{
		{"trust", func(from vfstate.Settings, to *vfstate.Settings) { to.Trust = from.Trust }, vfstate.Settings{Trust: ptr.To(false)}},
		{"spoofCheck", func(from vfstate.Settings, to *vfstate.Settings) { to.SpoofCheck = from.SpoofCheck }, vfstate.Settings{SpoofCheck: ptr.To(true)}},
		{"mac", func(from vfstate.Settings, to *vfstate.Settings) { to.HardwareAddress = from.HardwareAddress }, vfstate.Settings{}},
		{"vlan (with qos and proto)", func(from vfstate.Settings, to *vfstate.Settings) { to.VLAN = from.VLAN }, vfstate.Settings{VLAN: &vfstate.VLAN{Protocol: protocol8021q}}},
		{"linkState", func(from vfstate.Settings, to *vfstate.Settings) { to.LinkState = from.LinkState }, vfstate.Settings{LinkState: linkAuto}},
		{"minTxRate and maxTxRate", func(from vfstate.Settings, to *vfstate.Settings) { to.TxRate = from.TxRate }, vfstate.Settings{TxRate: &vfstate.Rate{}}},
	}
}

// of returns one setting alone.
func (s setting) of(all vfstate.Settings) vfstate.Settings {
	var one vfstate.Settings
	s.take(all, &one)
	return one
}

// known tells whether the one setting in it is there.
func known(one vfstate.Settings) bool { return one != vfstate.Settings{} }

func same(a, b vfstate.Settings) bool { return reflect.DeepEqual(a, b) }

// wanted returns what a claim's configuration asks of the PF. A rate that is
// left out stays as it was, for the kernel sets both at once.
func wanted(config *v1alpha1.VfConfig, now vfstate.Settings) vfstate.Settings {
	want := vfstate.Settings{Trust: config.Trust, SpoofCheck: config.SpoofCheck, LinkState: config.LinkState}
	if mac, err := net.ParseMAC(config.MAC); err == nil {
		want.HardwareAddress = mac.String()
	}
	if config.VLAN != nil {
		want.VLAN = &vfstate.VLAN{ID: *config.VLAN, QoS: ptr.Deref(config.QoS, 0), Protocol: protocol8021q}
		if config.Proto == protocol8021ad {
			want.VLAN.Protocol = protocol8021ad
		}
	}
	if config.MinTxRate != nil || config.MaxTxRate != nil {
		rate := ptr.Deref(now.TxRate, vfstate.Rate{})
		want.TxRate = &vfstate.Rate{Min: ptr.Deref(config.MinTxRate, rate.Min), Max: ptr.Deref(config.MaxTxRate, rate.Max)}
	}
	return want
}

// checkLinkType refuses what has no meaning on InfiniBand.
func checkLinkType(config *v1alpha1.VfConfig, linkType string) error {
	if linkType != "infiniband" {
		return nil
	}
	var errs []error
	if config.MAC != "" {
		errs = append(errs, fmt.Errorf("mac %q: an InfiniBand VF has no MAC that could be set, its GUID tells it apart: remove the field", config.MAC))
	}
	if config.VLAN != nil {
		errs = append(errs, fmt.Errorf("vlan %d: InfiniBand has partitions in place of VLANs, and the subnet manager makes them: remove the field", *config.VLAN))
	}
	return errors.Join(errs...)
}

// apply changes those settings of a VF that are not as wanted. Each error names
// the field of the claim's configuration that asked for it.
func apply(host kernel.Namespace, pf *kernel.Link, fn function, want vfstate.Settings) error {
	if !known(want) {
		return nil
	}
	if pf == nil {
		return noPF(fn)
	}
	now := fromKernel(pf.VFs[fn.index])
	for _, s := range settingsList() {
		one := s.of(want)
		if !known(one) || same(one, s.of(now)) {
			continue
		}
		if err := host.SetVF(pf.Index, fn.index, toKernel(one)); err != nil {
			return fmt.Errorf("set %s of VF %s (number %d of PF %s) to %s: the kernel or the NIC's driver refuses it: %w", s.field, fn.address, fn.index, pf.Name, describe(one), err)
		}
	}
	return nil
}

func noPF(fn function) error {
	return fmt.Errorf("PF %s of VF %s shows no network interface, through which a VF's settings are changed: see that the PF's driver is loaded", fn.pf, fn.address)
}

// restoreSettings makes the settings of a VF what they were, and where that is
// not known, what they are if nobody sets them. What was never touched is left
// alone.
func restoreSettings(ctx context.Context, host kernel.Namespace, pf *kernel.Link, fn function, j *vfstate.Journal) error {
	var was, back, guess vfstate.Settings
	if j.Former != nil {
		was = j.Former.Settings
	}
	now := fromKernel(pf.VFs[fn.index])
	for _, s := range settingsList() {
		switch {
		case known(s.of(was)):
			s.take(was, &back)
		case known(s.of(now)) && j.Former == nil:
			s.take(s.zero, &back)
		case known(s.of(j.Applied)):
			s.take(s.zero, &guess)
		}
	}
	if err := restoreAddress(host, pf, fn, j, back.HardwareAddress); err != nil {
		return err
	}
	back.HardwareAddress = ""
	if err := apply(host, pf, fn, back); err != nil {
		return err
	}
	for _, s := range settingsList() {
		// What the kernel neither tells nor sets it has not set before.
		if err := apply(host, pf, fn, s.of(guess)); err != nil {
			klog.FromContext(ctx).Info("A setting of a VF is not taken back: the kernel does not tell what it is, and refuses to change it", "device", fn.address, "setting", s.field, "reason", err)
		}
	}
	return nil
}

// restoreAddress gives a VF the address from its PF that it had. Not every
// driver lets a PF take back that it has given one at all.
func restoreAddress(host kernel.Namespace, pf *kernel.Link, fn function, j *vfstate.Journal, address string) error {
	err := apply(host, pf, fn, vfstate.Settings{HardwareAddress: address})
	if err != nil && address == noAddress && j.Former.HardwareAddress != "" {
		return apply(host, pf, fn, vfstate.Settings{HardwareAddress: j.Former.HardwareAddress})
	}
	return err
}

func describe(one vfstate.Settings) string {
	switch {
	case one.Trust != nil:
		return fmt.Sprint(*one.Trust)
	case one.SpoofCheck != nil:
		return fmt.Sprint(*one.SpoofCheck)
	case one.VLAN != nil:
		return fmt.Sprintf("%d (qos %d, proto %s)", one.VLAN.ID, one.VLAN.QoS, one.VLAN.Protocol)
	case one.TxRate != nil:
		return fmt.Sprintf("%d and %d Mbit/s", one.TxRate.Min, one.TxRate.Max)
	case one.LinkState != "":
		return one.LinkState
	default:
		return one.HardwareAddress
	}
}

// fromKernel puts settings into the form in which a journal has them, such that
// equal ones look equal.
func fromKernel(s kernel.VFSettings) vfstate.Settings {
	out := vfstate.Settings{SpoofCheck: s.SpoofCheck, Trust: s.Trust, LinkState: ptr.Deref(s.LinkState, "")}
	if len(s.HardwareAddress) == 6 {
		out.HardwareAddress = s.HardwareAddress.String()
	}
	if s.VLAN != nil {
		out.VLAN = &vfstate.VLAN{ID: s.VLAN.ID, QoS: s.VLAN.QoS, Protocol: s.VLAN.Protocol}
		if out.VLAN.ID == 0 || out.VLAN.Protocol == "" {
			out.VLAN.Protocol = protocol8021q
		}
	}
	if s.TxRate != nil {
		out.TxRate = &vfstate.Rate{Min: s.TxRate.Min, Max: s.TxRate.Max}
	}
	return out
}

func toKernel(s vfstate.Settings) kernel.VFSettings {
	out := kernel.VFSettings{SpoofCheck: s.SpoofCheck, Trust: s.Trust}
	if s.LinkState != "" {
		out.LinkState = ptr.To(s.LinkState)
	}
	if mac, err := net.ParseMAC(s.HardwareAddress); err == nil {
		out.HardwareAddress = mac
	}
	if s.VLAN != nil {
		out.VLAN = &kernel.VLAN{ID: s.VLAN.ID, QoS: s.VLAN.QoS, Protocol: s.VLAN.Protocol}
	}
	if s.TxRate != nil {
		out.TxRate = &kernel.TxRate{Min: s.TxRate.Min, Max: s.TxRate.Max}
	}
	return out
}

// hasAddress tells whether an interface has an Ethernet address.
func hasAddress(link *kernel.Link, want net.HardwareAddr) bool {
	return bytes.Equal(link.HardwareAddress, want)
}
