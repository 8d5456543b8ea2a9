package v1alpha1

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxVFs bounds how many VFs a PF can be given. No NIC has as many; a higher
// number is a slip.
const maxVFs = 4096

// Default fills in what the user left out, and writes hexadecimal numbers as
// the kernel does, in lower case.
func (c *NodeConfig) Default() {
	for i := range c.SRIOV.Selectors {
		c.SRIOV.Selectors[i].setDefaults()
	}
	c.DevicePlugin.setDefaults()
	c.NodeLabels.setDefaults()
	if c.Pairing.LeastAlignment == "" {
		c.Pairing.LeastAlignment = defaultAlignment
	}
	for i := range c.Pairing.Pairs {
		p := &c.Pairing.Pairs[i]
		p.GPU, p.NIC = strings.ToLower(p.GPU), strings.ToLower(p.NIC)
	}
	if c.Managed.Settle == "" {
		c.Managed.Settle = defaultSettle.String()
	}
}

// Validate returns an error that names every field with a wrong value.
func (c *NodeConfig) Validate() error {
	var errs field.ErrorList
	path := field.NewPath("sriov", "selectors")
	for i, s := range c.SRIOV.Selectors {
		errs = append(errs, s.validate(path.Index(i))...)
	}
	errs = append(errs, c.SRIOV.validateNumbers(path)...)
	errs = append(errs, c.Pairing.validate(field.NewPath("pairing"))...)
	errs = append(errs, c.Managed.validate(field.NewPath("managed"))...)
	errs = append(errs, c.DevicePlugin.validate(field.NewPath("devicePlugin"), c.Managed.Kinds)...)
	errs = append(errs, c.NodeLabels.validate(field.NewPath("nodeLabels"))...)
	return errs.ToAggregate()
}

// DeepCopyObject returns a copy of the configuration.
func (c *NodeConfig) DeepCopyObject() runtime.Object {
	if c == nil {
		return nil
	}
	out := *c
	out.Pairing.Pairs = slices.Clone(c.Pairing.Pairs)
	out.Managed.Kinds, out.Managed.NodeSelector = slices.Clone(c.Managed.Kinds), maps.Clone(c.Managed.NodeSelector)
	out.SRIOV.Selectors = slices.Clone(c.SRIOV.Selectors)
	for i := range out.SRIOV.Selectors {
		out.SRIOV.Selectors[i] = out.SRIOV.Selectors[i].copy()
	}
	out.DevicePlugin = c.DevicePlugin.copy()
	out.NodeLabels = clonePointer(c.NodeLabels)
	return &out
}

func (s *VFSelector) setDefaults() {
	for _, list := range [][]string{s.Vendors, s.Devices, s.RootDevices, s.PCIAddresses} {
		for n := range list {
			list[n] = strings.ToLower(list[n])
		}
	}
}

// copy returns a selector that shares nothing with s.
func (s VFSelector) copy() VFSelector {
	for _, list := range []*[]string{&s.Vendors, &s.Devices, &s.Drivers, &s.PFNames, &s.RootDevices, &s.PCIAddresses, &s.LinkTypes} {
		*list = slices.Clone(*list)
	}
	s.RDMA, s.NumVFs, s.MTU = clonePointer(s.RDMA), clonePointer(s.NumVFs), clonePointer(s.MTU)
	return s
}

func (s *VFSelector) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	each := func(name string, values []string, why func(string) string) {
		for i, v := range values {
			if w := why(v); w != "" {
				errs = append(errs, field.Invalid(path.Child(name).Index(i), v, w))
			}
		}
	}
	hexID, isAddress := regexp.MustCompile(`^[0-9a-f]{4}$`), isPCIAddress("0000:18:00.1")
	each("vendors", s.Vendors, matches(hexID, "want the four hexadecimal digits of a PCI vendor, such as 15b3"))
	each("devices", s.Devices, matches(hexID, "want the four hexadecimal digits of a PCI device, such as 101e"))
	each("drivers", s.Drivers, matches(regexp.MustCompile(`^[0-9A-Za-z_.-]+$`), "want the name of a kernel driver, such as mlx5_core"))
	each("pciAddresses", s.PCIAddresses, isAddress)
	each("pfNames", s.PFNames, s.withNumbers(func(name string) string {
		if name == "" {
			return "want the name of a PF, such as ibp24s0 or ibp24s0#0-3"
		}
		return badInterfaceName(name)
	}))
	each("rootDevices", s.RootDevices, s.withNumbers(isAddress))
	for i, t := range s.LinkTypes {
		if t != "ether" && t != "infiniband" {
			errs = append(errs, field.NotSupported(path.Child("linkTypes").Index(i), t, []string{"ether", "infiniband"}))
		}
	}
	if s.NumVFs != nil {
		errs = append(errs, within(path.Child("numVFs"), *s.NumVFs, 0, maxVFs)...)
	} else if s.ExternallyManaged {
		errs = append(errs, field.Required(path.Child("numVFs"), "externallyManaged checks this number of VFs: set it, or remove externallyManaged"))
	}
	if s.MTU != nil {
		errs = append(errs, within(path.Child("mtu"), *s.MTU, minMTU, maxMTU)...)
	}
	return errs
}

// matches returns a check that says what is wanted.
func matches(pattern *regexp.Regexp, want string) func(string) string {
	return func(v string) string {
		if !pattern.MatchString(v) {
			return want
		}
		return ""
	}
}

func isPCIAddress(example string) func(string) string {
	return matches(regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`), "want a PCI address with its domain, such as "+example)
}

// withNumbers returns a check of "PF" and of "PF#0,2-7", where why checks the
// PF. VFs that the selector's own numVFs leaves out cannot be chosen.
func (s *VFSelector) withNumbers(why func(string) string) func(string) string {
	return func(v string) string {
		pf, list, numbered := strings.Cut(v, "#")
		if w := why(pf); w != "" || !numbered {
			return w
		}
		last, err := lastNumber(list)
		switch {
		case err != nil:
			return err.Error()
		case s.NumVFs != nil && *s.NumVFs >= 0 && last >= *s.NumVFs:
			return fmt.Sprintf("contradicts numVFs of the same selector: with %d VFs there is no VF %d; numVFs counts all VFs of a PF, those that are not chosen too", *s.NumVFs, last)
		}
		return ""
	}
}

// lastNumber returns the highest number in a list such as "0,2-7".
func lastNumber(list string) (int, error) {
	last := 0
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		low, lowErr := vfNumber(from)
		high, highErr := vfNumber(to)
		switch {
		case lowErr != nil || highErr != nil:
			return 0, fmt.Errorf("has %q after the #: want numbers of VFs and ranges of them, such as 0-3,5, each less than %d", part, maxVFs)
		case low > high:
			return 0, fmt.Errorf("has the range %q, which ends before it begins", part)
		}
		last = max(last, high)
	}
	return last, nil
}

func vfNumber(s string) (int, error) {
	// ParseUint takes neither a sign nor, in base 10, an underscore.
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("read the VF number %q: %w", s, err)
	}
	if n >= maxVFs {
		return 0, fmt.Errorf("VF number %d is not less than %d", n, maxVFs)
	}
	return int(n), nil
}

// validateNumbers checks that no PF is named with two different numbers of VFs.
func (c *SRIOVConfig) validateNumbers(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	type first struct{ selector, number int }
	seen := map[string]first{}
	for i, s := range c.Selectors {
		if s.NumVFs == nil {
			continue
		}
		for _, name := range slices.Concat(s.PFNames, s.RootDevices) {
			pf, _, _ := strings.Cut(name, "#")
			before, ok := seen[pf]
			if !ok {
				seen[pf] = first{i, *s.NumVFs}
			} else if before.number != *s.NumVFs {
				errs = append(errs, field.Invalid(path.Index(i).Child("numVFs"), *s.NumVFs,
					fmt.Sprintf("%s gives %s %d VFs: want one number for each PF", path.Index(before.selector), pf, before.number)))
			}
		}
	}
	return errs
}
