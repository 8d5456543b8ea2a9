package cni

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// ResolveIPAM returns a configuration, ready to run, of a network that consists
// of an IPAM plugin alone. The name of the network is what plugins such as
// host-local keep their addresses apart by.
//
// Anybody who may make a claim writes the "ipam" object, and what it says is
// done as root on the host. So only plugins that are known to give addresses and
// nothing else are run, and without the settings by which they write and read
// any file. Whoever may make a NetworkAttachmentDefinition is trusted with more.
func (n *Networks) ResolveIPAM(name string, ipam json.RawMessage) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(ipam, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("ipam: want an object, such as {\"type\": \"host-local\", …}, not %s", ipam)
	}
	var kind types.IPAM
	if err := json.Unmarshal(ipam, &kind); err != nil {
		return nil, fmt.Errorf("ipam.type: want the name of a CNI IPAM plugin: %w", err)
	}
	known := []string{"dhcp", "host-local", "static", "whereabouts"}
	if !slices.Contains(known, kind.Type) {
		return nil, fmt.Errorf("ipam.type: %q is none of %s, which a claim may use: for another one use netAttachDef", kind.Type, strings.Join(known, ", "))
	}
	for key := range fields {
		for _, file := range []string{
			"dataDir", "resolvConf", // host-local
			"daemonSocketPath",                             // dhcp
			"kubernetes", "log_file", "configuration_path", // whereabouts, and of its former releases:
			"etcd_host", "etcd_key_file", "etcd_cert_file", "etcd_ca_cert_file",
		} {
			// Go programs, as these plugins are, read keys in any case.
			if strings.EqualFold(key, file) {
				return nil, fmt.Errorf("ipam.%s: a claim may not name files of the host: remove it, or use netAttachDef", key)
			}
		}
	}
	raw, err := json.Marshal(map[string]any{"type": kind.Type, "ipam": ipam})
	if err != nil {
		return nil, fmt.Errorf("encode the ipam object: %w", err)
	}
	plugin, err := libcni.NetworkPluginConfFromBytes(raw)
	if err != nil {
		return nil, fmt.Errorf("ipam: %w", err)
	}
	list := &libcni.NetworkConfigList{Name: name, CNIVersion: ipamVersion, Plugins: []*libcni.PluginConfig{plugin}}
	if err := n.check(list); err != nil {
		return nil, fmt.Errorf("ipam: %w", err)
	}
	return encode(list)
}
