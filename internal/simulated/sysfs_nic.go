package simulated

import (
	"fmt"
	"path"
	"strings"
)

// firmware is the oldest ConnectX-7 firmware whose VFs are known to work on
// these machines.
const firmware = "28.43.1014"

// ipoibPrefix stands before the GUID in the hardware address of an InfiniBand
// netdevice: the queue pair and the subnet.
const ipoibPrefix = "00:00:10:29:fe:80:00:00:00:00:00:00:"

// addNIC adds a port and, beside a GPU, its VFs, as they are once they were
// made, given GUIDs and bound to their driver.
func (s *sysfs) addNIC(n nic) {
	pf := function{
		path: n.path(), numa: n.numa, class: n.class(), revision: "00", driver: "mlx5_core",
		vendor: "15b3", device: "1021", subVendor: "15b3", subDevice: "0041",
		speed: "32.0 GT/s PCIe", width: "16",
	}
	s.addEndpoint(pf)
	s.addPort(pf, port{rdma: n.rdma, netdev: n.netdev, nic: n, guid: n.guid(0)})

	for name, value := range map[string]string{
		"sriov_numvfs":            fmt.Sprint(n.vfs()),
		"sriov_totalvfs":          fmt.Sprint(vfsPerPF),
		"sriov_offset":            "1",
		"sriov_stride":            "1",
		"sriov_vf_device":         "101e",
		"sriov_drivers_autoprobe": "1",
	} {
		s.file(path.Join(pf.dir(), name), value)
	}
	for i := range n.vfs() {
		s.addVF(n, pf, i)
	}
}

func (s *sysfs) addVF(n nic, pf function, index int) {
	vf := pf
	vf.path = path.Join(n.parent, n.vf(index))
	vf.device = "101e"
	vf.speed, vf.width = "", ""
	s.addEndpoint(vf)
	s.link(path.Join(vf.dir(), "physfn"), pf.dir())
	s.link(path.Join(pf.dir(), fmt.Sprintf("virtfn%d", index)), vf.dir())

	guid := n.guid(index + 1)
	s.addPort(vf, port{rdma: n.vfRDMA(index), netdev: n.vfNetdev(index), nic: n, guid: guid})
	admin := path.Join(pf.dir(), "sriov", fmt.Sprint(index))
	s.file(path.Join(admin, "node"), colons(guid))
	s.file(path.Join(admin, "port"), colons(guid))
	s.file(path.Join(admin, "policy"), "Follow")
}

// port is what the classes net and infiniband show of one function.
type port struct {
	rdma, netdev string
	nic          nic
	// guid is 16 hexadecimal digits.
	guid string
}

func (s *sysfs) addPort(f function, p port) {
	layer, rate := "InfiniBand", "400 Gb/sec (4X NDR)"
	netType, mtu, speed := "32", "4092", "400000"
	if p.nic.ethernet {
		layer, netType, mtu = "Ethernet", "1", "1500"
		if p.nic.gpu < 0 {
			rate, speed = "200 Gb/sec (4X HDR)", "200000"
		}
	}

	rdma := path.Join(f.dir(), "infiniband", p.rdma)
	for name, text := range map[string]string{
		"node_guid":          quads(p.guid),
		"sys_image_guid":     quads(p.guid),
		"node_type":          "1: CA",
		"fw_ver":             firmware,
		"hca_type":           "MT4129",
		"board_id":           "MT_0000000838",
		"ports/1/state":      "4: ACTIVE",
		"ports/1/phys_state": "5: LinkUp",
		"ports/1/link_layer": layer,
		"ports/1/rate":       rate,
		"ports/1/gids/0":     "fe80:0000:0000:0000:" + quads(p.guid),
	} {
		s.file(path.Join(rdma, name), text)
	}
	s.classDevice("infiniband", rdma, f)

	verbs := path.Join(f.dir(), "infiniband_verbs", fmt.Sprintf("uverbs%d", s.netdevs))
	s.file(path.Join(verbs, "ibdev"), p.rdma)
	s.file(path.Join(verbs, "dev"), fmt.Sprintf("231:%d", 192+s.netdevs))
	s.classDevice("infiniband_verbs", verbs, f)

	mad := path.Join(f.dir(), "infiniband_mad", fmt.Sprintf("umad%d", s.netdevs))
	s.file(path.Join(mad, "ibdev"), p.rdma)
	s.file(path.Join(mad, "port"), "1")
	s.file(path.Join(mad, "dev"), fmt.Sprintf("231:%d", s.netdevs))
	s.classDevice("infiniband_mad", mad, f)

	net := path.Join(f.dir(), "net", p.netdev)
	for name, text := range map[string]string{
		"address":   p.nic.hardwareAddress(p.guid),
		"carrier":   "1",
		"dev_port":  "0",
		"ifindex":   fmt.Sprint(s.netdevs + 2),
		"mtu":       mtu,
		"operstate": "up",
		"speed":     speed,
		"type":      netType,
	} {
		s.file(path.Join(net, name), text)
	}
	s.classDevice("net", net, f)
	s.netdevs++
}

// classDevice links a device of a class from there, and back.
func (s *sysfs) classDevice(class, dir string, f function) {
	s.link(path.Join("class", class, path.Base(dir)), dir)
	s.link(path.Join(dir, "device"), f.dir())
	s.link(path.Join(dir, "subsystem"), path.Join("class", class))
}

// class is that of an InfiniBand or an Ethernet controller.
func (n nic) class() string {
	if n.ethernet {
		return "020000"
	}
	return "020700"
}

// guid returns the port's own GUID for 0 and the GUID of VF i for i+1.
func (n nic) guid(function int) string {
	return fmt.Sprintf("a088c2%s%02x%04x", n.node, n.number, function)
}

// colons writes hexadecimal digits as bytes: 18:00:…
func colons(digits string) string { return strings.Join(chunks(digits, 2), ":") }

// quads writes hexadecimal digits in groups of four: 1800:…
func quads(digits string) string { return strings.Join(chunks(digits, 4), ":") }

func chunks(s string, size int) []string {
	var parts []string
	for i := 0; i < len(s); i += size {
		parts = append(parts, s[i:i+size])
	}
	return parts
}
