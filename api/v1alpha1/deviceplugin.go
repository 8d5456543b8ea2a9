package v1alpha1

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Values of [DevicePluginConfig.Mode].
const (
	// DevicePluginModeCDI answers kubelet with the names of CDI devices.
	DevicePluginModeCDI = "cdi"
	// DevicePluginModeEnvVar answers with environment variables, device nodes
	// and mounts, for container runtimes without CDI.
	DevicePluginModeEnvVar = "envvar"
)

const (
	// DefaultGPUResource is the name that NVIDIA's device plugin has made known.
	DefaultGPUResource = "nvidia.com/gpu"
	// defaultDevicePluginSettle is what it takes a claim that was allocated a
	// moment ago to be prepared.
	defaultDevicePluginSettle = 30 * time.Second
	// maxResourceName keeps "requests." + name, as which quotas count it, within
	// what a label's key may have.
	maxResourceName = 63
)

// DevicePluginConfig says which of the node's devices pods get as extended
// resources, such as "nvidia.com/gpu: 1", by kubelet's device plugin API. They
// are in no ResourceSlice. All others are for claims.
type DevicePluginConfig struct {
	// Kinds are the kinds of devices that are served this way: gpu and vf.
	// Devices that are a GPU together with a VF are then for nobody. None means
	// that everything is for claims.
	Kinds []string `json:"kinds,omitempty"`
	// NodeSelector are labels, each with its value, that the Node must have for
	// Kinds to count. Empty: they count on every node that has this
	// configuration.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Mode is how a container gets its devices: "cdi", which is the default, or
	// "envvar" for a container runtime without CDI. GPUs then need NVIDIA's
	// container runtime as the node's default one.
	Mode string `json:"mode,omitempty"`
	// GPUResource is the resource of GPUs; the default is nvidia.com/gpu.
	GPUResource string `json:"gpuResource,omitempty"`
	// VFResources are those of VFs. A VF belongs to the first that selects it;
	// one that none selects is for nobody.
	VFResources []VFResource `json:"vfResources,omitempty"`
	// Settle is how long a device that was for claims must be in no ResourceSlice
	// before pods get it as a resource, so that claims that were allocated by
	// then are prepared: a duration such as "30s", which is the default.
	Settle string `json:"settle,omitempty"`
}

// VFResource is an extended resource of VFs.
type VFResource struct {
	// Name is the resource's, such as "nvidia.com/ib_vf".
	Name string `json:"name"`
	// Selectors choose among the VFs that sriov.selectors have chosen. One that
	// matches any belongs to the resource; without selectors every VF does.
	Selectors []VFSelector `json:"selectors,omitempty"`
}

// devicePluginKinds are the values of devicePlugin.kinds.
func devicePluginKinds() []string { return []string{"gpu", "vf"} }

// SettleTime returns [DevicePluginConfig.Settle] as a duration. One that was left
// out is the default.
func (c *DevicePluginConfig) SettleTime() (time.Duration, error) {
	if c.Settle == "" {
		return defaultDevicePluginSettle, nil
	}
	return time.ParseDuration(c.Settle)
}

func (c *DevicePluginConfig) setDefaults() {
	if c.Mode == "" {
		c.Mode = DevicePluginModeCDI
	}
	if c.GPUResource == "" {
		c.GPUResource = DefaultGPUResource
	}
	if c.Settle == "" {
		c.Settle = defaultDevicePluginSettle.String()
	}
	for i := range c.VFResources {
		for n := range c.VFResources[i].Selectors {
			c.VFResources[i].Selectors[n].setDefaults()
		}
	}
}

func (c *DevicePluginConfig) copy() DevicePluginConfig {
	out := *c
	out.Kinds, out.VFResources = slices.Clone(c.Kinds), slices.Clone(c.VFResources)
	out.NodeSelector = maps.Clone(c.NodeSelector)
	for i := range out.VFResources {
		r := &out.VFResources[i]
		r.Selectors = slices.Clone(r.Selectors)
		for n := range r.Selectors {
			r.Selectors[n] = r.Selectors[n].copy()
		}
	}
	return out
}

// validate checks the section, and that managed devices are not given to it.
func (c *DevicePluginConfig) validate(path *field.Path, managed []string) field.ErrorList {
	var errs field.ErrorList
	for i, kind := range c.Kinds {
		at := path.Child("kinds").Index(i)
		switch {
		case !slices.Contains(devicePluginKinds(), kind):
			errs = append(errs, field.NotSupported(at, kind, devicePluginKinds()))
		case slices.Contains(c.Kinds[:i], kind):
			errs = append(errs, field.Duplicate(at, kind))
		case slices.Contains(managed, kind):
			errs = append(errs, field.Invalid(at, kind, "managed.kinds gives the same devices to the controller, which allocates claims: remove one of the two"))
		case slices.Contains(managed, "gpu-vf"):
			errs = append(errs, field.Invalid(at, kind, "managed.kinds has gpu-vf, and there is none without its "+kind+": remove one of the two"))
		}
	}
	if modes := []string{DevicePluginModeCDI, DevicePluginModeEnvVar}; c.Mode != "" && !slices.Contains(modes, c.Mode) {
		errs = append(errs, field.NotSupported(path.Child("mode"), c.Mode, modes))
	}
	if c.GPUResource != "" {
		errs = append(errs, resourceName(path.Child("gpuResource"), c.GPUResource)...)
	}
	errs = append(errs, validateNodeSelector(path.Child("nodeSelector"), c.NodeSelector)...)
	errs = append(errs, c.validateVFs(path.Child("vfResources"))...)
	if settle, err := c.SettleTime(); err != nil || settle < 0 || settle > maxSettle {
		errs = append(errs, field.Invalid(path.Child("settle"), c.Settle, fmt.Sprintf("want a duration with its unit, such as 30s, of at most %s", maxSettle)))
	}
	return errs
}

func (c *DevicePluginConfig) validateVFs(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if slices.Contains(c.Kinds, "vf") && len(c.VFResources) == 0 {
		errs = append(errs, field.Required(path, "kinds has vf: name at least one resource, such as nvidia.com/vf"))
	}
	names := map[string]bool{cmp.Or(c.GPUResource, DefaultGPUResource): true}
	for i, r := range c.VFResources {
		at := path.Index(i)
		errs = append(errs, resourceName(at.Child("name"), r.Name)...)
		if names[r.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), r.Name))
		}
		names[r.Name] = true
		for n, s := range r.Selectors {
			one := at.Child("selectors").Index(n)
			errs = append(errs, s.validate(one)...)
			for name, set := range map[string]bool{"numVFs": s.NumVFs != nil, "mtu": s.MTU != nil, "externallyManaged": s.ExternallyManaged} {
				if set {
					errs = append(errs, field.Forbidden(one.Child(name), "it is about PFs: set it in sriov.selectors"))
				}
			}
		}
	}
	return errs
}

// resourceName checks the name of an extended resource as kubelet does.
func resourceName(path *field.Path, name string) field.ErrorList {
	const want = "want a domain and a name, such as nvidia.com/gpu"
	domain, _, ok := strings.Cut(name, "/")
	switch problems := validation.IsQualifiedName(name); {
	case name == "":
		return field.ErrorList{field.Required(path, want)}
	case !ok || len(problems) > 0:
		return field.ErrorList{field.Invalid(path, name, strings.Join(append([]string{want}, problems...), "; "))}
	// Kubelet takes whatever has "kubernetes.io/" in it for Kubernetes' own, such as
	// mykubernetes.io/gpu (IsPrefixedNativeResource in pkg/apis/core/v1/helper).
	case strings.HasSuffix(domain, "kubernetes.io") || strings.HasPrefix(name, "requests."):
		return field.ErrorList{field.Invalid(path, name, "kubelet takes this name for Kubernetes' own: "+want)}
	case len(name) > maxResourceName:
		return field.ErrorList{field.TooLong(path, name, maxResourceName)}
	}
	return nil
}
