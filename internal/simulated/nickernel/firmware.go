package nickernel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// firmware remembers the settings of VFs as a NIC does: also while a VF's
// interface comes and goes, but not over a reboot.
type firmware struct {
	dir string
	// life tells one life of the NIC from another.
	life string
}

// settings are those of one VF. The zero value is what a NIC begins with.
type settings struct {
	Life       string `json:"life"`
	MAC        string `json:"mac,omitempty"`
	VLAN       int    `json:"vlan,omitempty"`
	QoS        int    `json:"qos,omitempty"`
	SpoofCheck bool   `json:"spoofCheck,omitempty"`
	Trust      bool   `json:"trust,omitempty"`
	LinkState  string `json:"linkState,omitempty"`
	MinRate    int    `json:"minRate,omitempty"`
	MaxRate    int    `json:"maxRate,omitempty"`
}

const (
	linkAuto    = "auto"
	linkEnable  = "enable"
	linkDisable = "disable"
)

func (f firmware) path(address string) string { return filepath.Join(f.dir, address+".json") }

// load returns the settings of a VF, those of a new one where there are none
// of this life.
func (f firmware) load(address string) (settings, error) {
	fresh := f.fresh()
	content, err := os.ReadFile(f.path(address))
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return settings{}, fmt.Errorf("read what the simulated NIC remembers of VF %s: %w", address, err)
	}
	var found settings
	if err := json.Unmarshal(content, &found); err != nil || found.Life != f.life {
		return fresh, nil //nolint:nilerr // what is no settings, or those of another life, is forgotten
	}
	return found, nil
}

func (f firmware) fresh() settings { return settings{Life: f.life, LinkState: linkAuto} }

// save keeps the settings of a VF. Those of a new one need no file, so that a
// look at many VFs that nobody has changed opens none.
func (f firmware) save(address string, s settings) error {
	fail := func(err error) error {
		return fmt.Errorf("keep what the simulated NIC is to remember of VF %s: %w", address, err)
	}
	if s == f.fresh() {
		if err := wholefile.Remove(f.path(address)); err != nil {
			return fail(err)
		}
		return nil
	}
	content, err := json.Marshal(s)
	if err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(f.dir, 0o750); err != nil {
		return fail(err)
	}
	// Two plugins may run at once, so nobody may see half a file.
	staged := filepath.Join(f.dir, "."+address+"-*")
	if err := wholefile.Replace(f.path(address), content, wholefile.Options{Temp: staged, Mode: 0o600}); err != nil {
		return fail(err)
	}
	return nil
}

// shown is what the kernel tells of the settings. A NIC that was told no
// address for a VF shows zeros.
func (s settings) shown() kernel.VFSettings {
	address, err := net.ParseMAC(s.MAC)
	if err != nil {
		address = make(net.HardwareAddr, 6)
	}
	return kernel.VFSettings{
		HardwareAddress: address,
		VLAN:            &kernel.VLAN{ID: s.VLAN, QoS: s.QoS, Protocol: "802.1Q"},
		SpoofCheck:      &s.SpoofCheck,
		Trust:           &s.Trust,
		LinkState:       &s.LinkState,
		TxRate:          &kernel.TxRate{Min: s.MinRate, Max: s.MaxRate},
	}
}

// with returns the settings after a change. It refuses what the driver of a
// ConnectX-7 refuses for an Ethernet port (mlx5_eswitch_set_vport_* of Linux).
func (s settings) with(change kernel.VFSettings) (settings, error) {
	refuse := func(what string, errno unix.Errno) error { return fmt.Errorf("%s: %w", what, errno) }
	if mac := change.HardwareAddress; mac != nil {
		if len(mac) != 6 || mac[0]&1 != 0 {
			return s, refuse("hardware address "+mac.String(), unix.EINVAL)
		}
		// Zeros take the address back.
		if s.MAC = mac.String(); bytes.Equal(mac, make([]byte, 6)) {
			s.MAC = ""
		}
	}
	if vlan := change.VLAN; vlan != nil {
		switch {
		case vlan.Protocol != "" && vlan.Protocol != "802.1Q":
			return s, refuse("VLAN protocol "+vlan.Protocol, unix.EPROTONOSUPPORT)
		case vlan.ID < 0 || vlan.ID > 4095 || vlan.QoS < 0 || vlan.QoS > 7:
			return s, refuse(fmt.Sprintf("VLAN %d, priority %d", vlan.ID, vlan.QoS), unix.EINVAL)
		}
		s.VLAN, s.QoS = vlan.ID, vlan.QoS
	}
	if change.SpoofCheck != nil {
		s.SpoofCheck = *change.SpoofCheck
	}
	if change.Trust != nil {
		s.Trust = *change.Trust
	}
	if state := change.LinkState; state != nil {
		if *state != linkAuto && *state != linkEnable && *state != linkDisable {
			return s, refuse("link state "+*state, unix.EINVAL)
		}
		s.LinkState = *state
	}
	if rate := change.TxRate; rate != nil {
		if rate.Max != 0 && rate.Min > rate.Max {
			return s, refuse(fmt.Sprintf("rates %d to %d Mbit/s", rate.Min, rate.Max), unix.EINVAL)
		}
		s.MinRate, s.MaxRate = rate.Min, rate.Max
	}
	if change.NodeGUID != nil || change.PortGUID != nil {
		return s, refuse("GUID of an Ethernet port's VF", unix.EOPNOTSUPP)
	}
	return s, nil
}
