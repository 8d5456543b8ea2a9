package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
)

// table is the devices with what a person looks for first.
func table(devices []resourceapi.Device) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	line := func(columns ...string) {
		// A strings.Builder takes everything.
		_, _ = fmt.Fprintln(w, "  "+strings.Join(columns, "\t"))
	}
	line("NAME", "PRODUCT", "MEMORY", "PCI ADDRESS", "PCIE ROOT", "NUMA NODE")
	for _, d := range devices {
		memory := d.Capacity["memory"].Value
		line(d.Name, text(d, "productName"), memory.String(),
			text(d, deviceattribute.StandardDeviceAttributePCIBusID),
			text(d, deviceattribute.StandardDeviceAttributePCIeRoot),
			text(d, deviceattribute.StandardDeviceAttributeNUMANode))
	}
	_ = w.Flush()
	return out.String()
}

// portTable is the NIC ports whose VFs are published, one line for each.
func portTable(published []resourceapi.ResourceSlice) string {
	var ports []string
	first, count := map[string]resourceapi.Device{}, map[string]int{}
	for _, slice := range published {
		for _, d := range slice.Spec.Devices {
			if text(d, "type") != "vf" {
				continue
			}
			port := text(d, "pfName")
			if count[port]++; count[port] == 1 {
				ports = append(ports, port)
				first[port] = d
			}
		}
	}
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	line := func(columns ...string) {
		_, _ = fmt.Fprintln(w, "  "+strings.Join(columns, "\t"))
	}
	line("PORT", "VFS", "FIRST VF", "LINK", "RDMA", "PCIE ROOT", "NUMA NODE")
	for _, port := range ports {
		d := first[port]
		line(port, fmt.Sprint(count[port]), d.Name, text(d, "linkType"), text(d, "rdma"),
			text(d, deviceattribute.StandardDeviceAttributePCIeRoot),
			text(d, deviceattribute.StandardDeviceAttributeNUMANode))
	}
	_ = w.Flush()
	return out.String()
}

// attachment is what the devices of a claim have become in its pod.
func attachment(claim *resourceapi.ResourceClaim) string {
	var out strings.Builder
	for _, d := range claim.Status.Devices {
		if n := d.NetworkData; n != nil {
			fmt.Fprintf(&out, "  %s is interface %s, %s, with %s\n", d.Device, n.InterfaceName, n.HardwareAddress, strings.Join(n.IPs, ", "))
		}
	}
	return out.String()
}

// text is an attribute for people; a dash stands for one that is not there.
func text(d resourceapi.Device, name resourceapi.QualifiedName) string {
	switch a := d.Attributes[name]; {
	case a.StringValue != nil:
		return *a.StringValue
	case a.VersionValue != nil:
		return *a.VersionValue
	case a.IntValue != nil:
		return fmt.Sprint(*a.IntValue)
	case a.BoolValue != nil:
		return fmt.Sprint(*a.BoolValue)
	}
	return "-"
}

// allocation is what a claim asked for and what it got.
func allocation(claim *resourceapi.ResourceClaim) string {
	var out strings.Builder
	fmt.Fprintf(&out, "  claim      %s\n", claim.Name)
	for _, request := range claim.Spec.Devices.Requests {
		if exactly := request.Exactly; exactly != nil {
			fmt.Fprintf(&out, "  asked for  %d × %s\n", exactly.Count, exactly.DeviceClassName)
		}
	}
	for _, result := range claim.Status.Allocation.Devices.Results {
		fmt.Fprintf(&out, "  was given  %s of pool %s\n", result.Device, result.Pool)
	}
	return out.String()
}
