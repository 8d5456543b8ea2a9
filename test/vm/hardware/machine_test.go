//go:build guest

package hardware

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// place is where a device is plugged in.
type place struct{ Path, NUMA, Vendor string }

func TestDevicesAreWhereTheyShouldBe(t *testing.T) {
	const behindSwitch = "pci0000:40/0000:40:00.0/0000:41:00.0/0000:42:"
	want := map[string]place{
		pf0:            {behindSwitch + "00.0/" + pf0, "0", "0x8086"},
		pf1:            {behindSwitch + "01.0/" + pf1, "0", "0x8086"},
		"0000:45:00.0": {behindSwitch + "02.0/0000:45:00.0", "0", "0x1234"},
		"0000:46:00.0": {behindSwitch + "03.0/0000:46:00.0", "0", "0x1234"},
		pf2:            {"pci0000:80/0000:80:00.0/" + pf2, "1", "0x8086"},
		"0000:82:00.0": {"pci0000:80/0000:80:01.0/0000:82:00.0", "1", "0x1234"},
	}
	got := map[string]place{}
	for address := range want {
		path, err := filepath.EvalSymlinks(sys(address))
		if err != nil {
			t.Error(err)
			continue
		}
		got[address] = place{strings.TrimPrefix(path, "/sys/devices/"), read(t, sys(address, "numa_node")), read(t, sys(address, "vendor"))}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if nodes := read(t, "/sys/devices/system/node/online"); nodes != "0-1" {
		t.Errorf("NUMA nodes %s, want 0-1", nodes)
	}
}

func TestVFsAppearAndGo(t *testing.T) {
	for _, test := range []struct {
		pf   string
		own  bool // Each VF has an IOMMU group of its own.
		want []string
	}{
		{pf0, false, []string{"0000:43:10.0", "0000:43:10.2", "0000:43:10.4", "0000:43:10.6", "0000:43:11.0", "0000:43:11.2", "0000:43:11.4"}},
		{pf2, true, []string{"0000:81:10.0", "0000:81:10.2", "0000:81:10.4", "0000:81:10.6", "0000:81:11.0", "0000:81:11.2", "0000:81:11.4"}},
	} {
		t.Run(test.pf, func(t *testing.T) {
			if total := read(t, sys(test.pf, "sriov_totalvfs")); total != "7" {
				t.Errorf("the card can have %s VFs, want 7", total)
			}
			vfs := makeVFs(t, test.pf, 7)
			if diff := cmp.Diff(test.want, vfs); diff != "" {
				t.Fatalf("VFs (-want +got):\n%s", diff)
			}
			groups := map[string]bool{}
			for _, vf := range vfs {
				netdev(t, vf)
				if pf := link(sys(vf, "physfn")); pf != test.pf {
					t.Errorf("%s says that its PF is %s", vf, pf)
				}
				if driver := link(sys(vf, "driver")); driver != "igbvf" {
					t.Errorf("%s has the driver %q", vf, driver)
				}
				if numa := read(t, sys(vf, "numa_node")); numa != read(t, sys(test.pf, "numa_node")) {
					t.Errorf("%s is on NUMA node %s", vf, numa)
				}
				groups[link(sys(vf, "iommu_group"))] = true
			}
			if groups[""] || (len(groups) == len(vfs)) != test.own {
				t.Errorf("the VFs are in %d IOMMU groups (%v), want one each: %v", len(groups), groups, test.own)
			}
			if err := write(sys(test.pf, "sriov_numvfs"), "3"); err == nil {
				t.Error("the number of VFs changed from 7 to 3 without going through 0")
			}
			mustWrite(t, sys(test.pf, "sriov_numvfs"), "0")
			if _, err := os.Stat(sys(vfs[0])); !os.IsNotExist(err) {
				t.Errorf("the VF is still there: %v", err)
			}
		})
	}
}
