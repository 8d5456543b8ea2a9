package sriov

import (
	"context"
	"net/netip"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// carrierWait is how long the link of a VF that was set up is waited for, so that
// its addresses can be announced. Drivers that ask the NIC for it need
// milliseconds.
const carrierWait = 300 * time.Millisecond

// announce tells the neighbours of the interface's addresses, lest they go on
// sending to the one that had them before. They find out by themselves too, only
// later, so that a failure, or a link that needs longer, is no reason to keep the
// container waiting.
func (m *move) announce(ctx context.Context, link *kernel.Link, addresses []netip.Prefix) {
	if len(addresses) == 0 {
		return
	}
	logger := klog.FromContext(ctx).WithValues("device", m.fn.address, "pod", m.place.Sandbox.Pod, "interface", link.Name)
	if !m.awaitCarrier(ctx) {
		logger.V(2).Info("The VF's addresses are not announced, since its link does not work yet")
		return
	}
	if err := m.pod.AnnounceAddresses(link.Index, addresses); err != nil {
		logger.Info("The VF's addresses are not announced, so that neighbours may send to another interface for some seconds", "reason", err)
	}
}

// awaitCarrier waits a moment for the link of the interface in the pod.
func (m *move) awaitCarrier(ctx context.Context) bool {
	deadline := time.Now().Add(carrierWait)
	for {
		link, err := linkOf(m.pod, m.fn.address)
		if err == nil && link != nil && link.Carrier {
			return true
		}
		if err != nil || link == nil || time.Now().After(deadline) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(returnPoll):
		}
	}
}
