package kernel

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// EswitchModes asks devlink. A kernel without it knows none.
func (n *namespace) EswitchModes() (map[string]string, error) {
	var (
		handle  *netlink.Handle
		devices []*netlink.DevlinkDevice
	)
	err := within(n.file, func() (err error) {
		handle, err = newHandle(unix.NETLINK_GENERIC)
		return err
	})
	if err == nil {
		devices, err = repeated(handle.DevLinkGetDeviceList)
		err = errors.Join(err, handle.Close())
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the modes of the NICs' switches: %w", err)
	}
	modes := make(map[string]string)
	for _, device := range devices {
		if address := pciAddress(device.DeviceName); device.BusName == "pci" && address != "" && device.Attrs.Eswitch.Mode != "" {
			modes[address] = device.Attrs.Eswitch.Mode
		}
	}
	return modes, nil
}
