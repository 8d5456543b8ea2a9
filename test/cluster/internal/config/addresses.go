package config

import "net/netip"

// Addresses are the fixed places in a cluster's /23.
type Addresses struct {
	// Pods is the node's pod network.
	Pods netip.Prefix
	// PodGateway is the node's address in the pod network.
	PodGateway netip.Addr
	// Host and API are the ends of the link between host and control plane.
	Host, API netip.Addr
	// ControlPlane and Node are the ends of the link between control plane and
	// node.
	ControlPlane, Node netip.Addr
}

// LinkBits is the prefix length of both links' networks.
const LinkBits = 30

// Addresses computes the cluster's addresses from its block: the first half is
// for pods, the second half holds the two links.
func (c *Config) Addresses() Addresses {
	base := c.Block.Addr().As4()
	at := func(third, fourth byte) netip.Addr {
		return netip.AddrFrom4([4]byte{base[0], base[1], base[2] + third, fourth})
	}
	return Addresses{
		Pods:       netip.PrefixFrom(at(0, 0), 24),
		PodGateway: at(0, 1),
		Host:       at(1, 1), API: at(1, 2),
		ControlPlane: at(1, 5), Node: at(1, 6),
	}
}

// ServiceNetwork is the range of Service addresses. It exists only inside the
// cluster's network namespaces.
func ServiceNetwork() netip.Prefix { return netip.MustParsePrefix("10.96.0.0/16") }

// KubernetesService is the address of the Service `kubernetes`: the first of
// the range. The control plane holds it itself, since no kube-proxy is there to
// translate it.
func KubernetesService() netip.Addr { return netip.MustParseAddr("10.96.0.1") }

// APIPort is the API server's port: the Service's own, so that no translation
// is needed; it is free in a network namespace of one's own.
const APIPort = 443
