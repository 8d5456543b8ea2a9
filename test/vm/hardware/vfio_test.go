//go:build guest

package hardware

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAVFGoesToUserSpaceAndBack(t *testing.T) {
	// In a root port a VF has an IOMMU group of its own.
	vf := makeVFs(t, pf2, 1)[0]
	netdev(t, vf)
	bind := func(driver, override string) {
		t.Helper()
		// A line feed alone clears it.
		mustWrite(t, sys(vf, "driver_override"), override+"\n")
		mustWrite(t, sys(vf, "driver", "unbind"), vf)
		mustWrite(t, "/sys/bus/pci/drivers_probe", vf)
		if got := link(sys(vf, "driver")); got != driver {
			t.Fatalf("%s has the driver %q, want %s", vf, got, driver)
		}
	}
	bind("vfio-pci", "vfio-pci")
	group := filepath.Join("/dev/vfio", link(sys(vf, "iommu_group")))
	if _, err := os.Stat(group); err != nil {
		t.Errorf("user space has no way to the VF: %v", err)
	}
	bind("igbvf", "")
	netdev(t, vf)
	if _, err := os.Stat(group); !os.IsNotExist(err) {
		t.Errorf("user space still has a way to the VF: %v", err)
	}
}
