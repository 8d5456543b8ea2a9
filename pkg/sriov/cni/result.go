package cni

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// read takes from the answer of the last plugin what belongs to an interface in
// the pod. The routes of an IPAM plugin alone are to be made by others, so what
// cannot be said about them is an error.
func read(answer types.Result, ifName string, ipamOnly bool) (Result, error) {
	full, err := types100.NewResultFromResult(answer)
	if err != nil {
		return Result{}, fmt.Errorf("read the result of the plugins: %w", err)
	}
	var result Result
	index := slices.IndexFunc(full.Interfaces, func(i *types100.Interface) bool { return i.Sandbox != "" && i.Name == ifName })
	if index >= 0 {
		result.Interface, result.MAC = full.Interfaces[index].Name, full.Interfaces[index].Mac
	}
	gateways := map[bool]netip.Addr{}
	for _, ip := range full.IPs {
		// Without interfaces, as IPAM plugins answer, an address belongs to
		// the one there is.
		if ip.Interface != nil && index >= 0 && *ip.Interface != index {
			continue
		}
		address, ok := netip.AddrFromSlice(ip.Address.IP)
		bits, _ := ip.Address.Mask.Size()
		if !ok || !netip.PrefixFrom(address.Unmap(), bits).IsValid() {
			return Result{}, fmt.Errorf("the plugins answer with the address %q, which is none", ip.Address.String())
		}
		address = address.Unmap()
		result.Addresses = append(result.Addresses, netip.PrefixFrom(address, bits))
		if gateway, ok := netip.AddrFromSlice(ip.Gateway); ok && !gateways[address.Is4()].IsValid() {
			gateways[address.Is4()] = gateway.Unmap()
		}
	}
	for _, r := range full.Routes {
		// The main table is 254 (RT_TABLE_MAIN).
		if r.Table != nil && *r.Table != 0 && *r.Table != 254 {
			if ipamOnly {
				return Result{}, fmt.Errorf("the IPAM plugin answers with a route to %s in routing table %d: only routes of the main table can be made; remove \"table\"", r.Dst.String(), *r.Table)
			}
			continue
		}
		route, err := readRoute(r, gateways)
		if err != nil {
			return Result{}, err
		}
		result.Routes = append(result.Routes, route)
	}
	return result, nil
}

// readRoute reads a route. One without a gateway of its own goes by that of an
// address of its family, says the CNI specification.
func readRoute(r *types.Route, gateways map[bool]netip.Addr) (kernel.Route, error) {
	address, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	destination := netip.PrefixFrom(address.Unmap(), bits).Masked()
	if !ok || !destination.IsValid() {
		return kernel.Route{}, fmt.Errorf("the plugins answer with a route to %q, which is no network", r.Dst.String())
	}
	gateway := gateways[destination.Addr().Is4()]
	if own, ok := netip.AddrFromSlice(r.GW); ok {
		gateway = own.Unmap()
	}
	return kernel.Route{Destination: destination, Gateway: gateway, Metric: r.Priority}, nil
}
