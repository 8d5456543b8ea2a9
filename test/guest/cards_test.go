package guest

import (
	"fmt"
	"path"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
)

// card is a network card of the guest, and how many VFs the configuration gives
// it.
type card struct {
	address    string
	vfs        int
	root, numa string
}

func cards() []card {
	return []card{
		{address: "0000:43:00.0", vfs: 4, root: "pci0000:40", numa: "0"},
		{address: "0000:44:00.0", vfs: 2, root: "pci0000:40", numa: "0"},
		{address: "0000:81:00.0", vfs: 4, root: "pci0000:80", numa: "1"},
	}
}

const (
	// allVFs is how many the cards have together.
	allVFs = 10
	// allGPUs is how many PCI functions stand in for a GPU.
	allGPUs = 3
	// A VF behind the switch, and one in a root port, where it has an IOMMU group
	// of its own.
	switchedVF, rootedVF = "0000:43:10.0", "0000:81:10.0"
)

// sysfs is the path of a file of the card.
func (c card) sysfs(file string) string { return path.Join("/sys/bus/pci/devices", c.address, file) }

// vf is the address of a VF of the card: an 82576 has them at every second
// function from 10.0 on.
func (c card) vf(index int) string {
	return fmt.Sprintf("%s%02x.%d", strings.TrimSuffix(c.address, "00.0"), 0x10+index/4, index%4*2)
}

// published returns the VFs in the API, by address.
func (s *space) published() map[string]resourceapi.Device {
	s.t.Helper()
	return s.publishedOf("vf")
}

// publishedOf returns the devices of a type in the API, by address. That of a
// pair is its GPU's.
func (s *space) publishedOf(kind string) map[string]resourceapi.Device {
	s.t.Helper()
	list, err := world.Slices(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	devices := map[string]resourceapi.Device{}
	for _, slice := range list {
		for _, device := range slice.Spec.Devices {
			if value(device, "type") == kind {
				devices[value(device, "resource.kubernetes.io/pciBusID")] = device
			}
		}
	}
	return devices
}

// waitPublished returns the VFs once the API has all devices, free of taints.
func (s *space) waitPublished() map[string]resourceapi.Device {
	s.t.Helper()
	s.until("published", func() error {
		for kind, want := range map[string]int{"vf": allVFs, "gpu": allGPUs, "gpu-vf": allGPUs} {
			devices := s.publishedOf(kind)
			if len(devices) != want {
				return fmt.Errorf("%d devices of type %s are published, want %d", len(devices), kind, want)
			}
			for _, device := range devices {
				if len(device.Taints) > 0 {
					return fmt.Errorf("device %s has taints %+v", device.Name, device.Taints)
				}
			}
		}
		return nil
	})
	return s.published()
}

// value is an attribute as text, empty where there is none.
func value(device resourceapi.Device, name resourceapi.QualifiedName) string {
	switch a := device.Attributes[name]; {
	case a.StringValue != nil:
		return *a.StringValue
	case a.IntValue != nil:
		return fmt.Sprint(*a.IntValue)
	case a.BoolValue != nil:
		return fmt.Sprint(*a.BoolValue)
	}
	return ""
}

// hostVFs prints what the host says of each VF: its driver, its interface, and
// what its PF has set.
const hostVFs = `cd /sys/bus/pci/devices
for pf in 0000:43:00.0 0000:44:00.0 0000:81:00.0; do
	for vf in $pf/virtfn*; do
		[ -e $vf ] || continue
		address=$(readlink $vf); address=${address##*/}
		line="$address driver=$(basename $(readlink $vf/driver))"
		for net in $vf/net/*; do
			[ -e $net ] || continue
			read -r mac < $net/address; read -r mtu < $net/mtu; read -r flags < $net/flags
			line="$line name=${net##*/} mac=$mac mtu=$mtu up=$((flags & 1))"
		done
		echo "$line"
	done
	ip link show $(ls $pf/net) | grep ' vf '
done`

// host returns what the host says of its VFs.
func (s *space) host() []string {
	s.t.Helper()
	lines := strings.Split(s.guest("sh", "-c", hostVFs), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return lines
}

// wantHost waits until the host says of its VFs what it said before.
func (s *space) wantHost(before []string) {
	s.t.Helper()
	s.until("as it was", func() error {
		if now := s.host(); !slices.Equal(before, now) {
			return fmt.Errorf("the host's VFs were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(now, "\n"))
		}
		return nil
	})
}
