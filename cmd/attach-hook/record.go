package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// record is what this program must know of a claim's record, which
// pkg/driver/claimstore writes.
type record struct {
	Claim struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"claim"`
	BootID   string         `json:"bootID"`
	Devices  []recordDevice `json:"devices"`
	Attached []struct {
		Sandbox struct {
			ID        string `json:"id"`
			Namespace string `json:"namespace"`
		} `json:"sandbox"`
		Devices []attachedDevice `json:"devices"`
	} `json:"attached"`
}

type recordDevice struct {
	Family string `json:"family"`
	Device string `json:"device"`
	Attach bool   `json:"attach"`
}

type attachedDevice struct {
	Family     string `json:"family"`
	Device     string `json:"device"`
	Attachment struct {
		Interface string `json:"interface"`
	} `json:"attachment"`
}

// loadRecord returns the record of a claim, or one that says nothing if there is none
// that can be read: then the plugin decides.
func loadRecord(dataDir, claim string) record {
	var r record
	data, err := os.ReadFile(filepath.Join(dataDir, "claims", claim+".json"))
	if err != nil {
		return record{}
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}
	}
	return r
}

// claimName names the claim for a person.
func (r record) claimName(uid string) string {
	if r.Claim.Name == "" {
		return uid
	}
	return r.Claim.Namespace + "/" + r.Claim.Name
}

// hasAll tells whether all devices of the claim are in the container's sandbox,
// as the record says and the kernel shows.
func (r record) hasAll(c *container) bool {
	if r.BootID == "" || r.BootID != c.bootID() {
		return false
	}
	interfaces := c.interfaces()
	for _, a := range r.Attached {
		if a.Sandbox.ID != c.sandboxID || a.Sandbox.Namespace != c.identity {
			continue
		}
		return !slices.ContainsFunc(r.Devices, func(d recordDevice) bool {
			return d.Attach && !slices.ContainsFunc(a.Devices, func(has attachedDevice) bool {
				return has.Family == d.Family && has.Device == d.Device &&
					(has.Attachment.Interface == "" || slices.Contains(interfaces, has.Attachment.Interface))
			})
		})
	}
	return false
}

func (c *container) bootID() string {
	data, err := os.ReadFile(filepath.Join(c.procfs, "sys/kernel/random/boot_id"))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(data))
}

// interfaces returns the names of the network interfaces that the container
// sees.
func (c *container) interfaces() []string {
	data, err := os.ReadFile(c.proc("net/dev"))
	if err != nil {
		return nil
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}
