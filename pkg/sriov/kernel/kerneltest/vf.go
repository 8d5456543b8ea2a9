package kerneltest

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// SetVF implements [kernel.Namespace].
func (n *Namespace) SetVF(pf, vf int, s kernel.VFSettings) error {
	return n.change("SetVF", pf, s, func(l *kernel.Link) error {
		now, ok := l.VFs[vf]
		if !ok {
			return fmt.Errorf("PF %s has no VF %d", l.Name, vf)
		}
		if s.HardwareAddress != nil {
			now.HardwareAddress = s.HardwareAddress
		}
		if s.VLAN != nil {
			now.VLAN = s.VLAN
		}
		if s.SpoofCheck != nil {
			now.SpoofCheck = s.SpoofCheck
		}
		if s.Trust != nil {
			now.Trust = s.Trust
		}
		if s.LinkState != nil {
			now.LinkState = s.LinkState
		}
		if s.TxRate != nil {
			now.TxRate = s.TxRate
		}
		l.VFs[vf] = now
		return nil
	})
}

// given returns the address that a VF's PF has given it. The VF's number is one
// less than the function of its address, as on the machines of these tests.
func (k *Kernel) given(device string) net.HardwareAddr {
	bus, function, _ := strings.Cut(device, ".")
	number, err := strconv.Atoi(function)
	if err != nil {
		return nil
	}
	for _, link := range k.host.links {
		if link.Device == bus+".0" {
			return link.VFs[number-1].HardwareAddress
		}
	}
	return nil
}

// Bound is what a kernel does when a driver was bound to a VF: it makes an
// interface, with the address that the PF has given or else the one here.
func (k *Kernel) Bound(link kernel.Link) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if given := k.given(link.Device); !kernel.IsZero(given) {
		link.HardwareAddress = given
	}
	for n := 0; k.host.byName(link.Name) != nil; n++ {
		link.Name = fmt.Sprintf("eth%d", n)
	}
	k.host.add(link)
}
