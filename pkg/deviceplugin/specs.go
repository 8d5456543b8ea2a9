package deviceplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// classPrefix begins the class of the device plugin's CDI devices. Those of
// claims are in classes, and files, of other names.
const classPrefix = "deviceplugin-"

// specs are the CDI specs of the devices that the device plugin holds, one for
// each family. They are there as long as the devices are held: a container that
// starts again asks for them without anybody being asked.
type specs struct {
	dir, driver string
}

func newSpecs(dir, driver string) *specs { return &specs{dir: dir, driver: driver} }

func (s *specs) kind(family string) string { return s.driver + "/" + classPrefix + family }

func (s *specs) path(family string) string {
	return filepath.Join(s.dir, s.driver+"_"+classPrefix+family+".json")
}

// name is by what a runtime is asked for a device. Kubelet keeps it for containers
// that start again, even after a reboot, so it must never come to mean another
// device: it has kubelet's ID, not an address where a GPU may be replaced.
func (s *specs) name(i *item) string { return s.kind(i.family.Name()) + "=" + i.id }

// write makes the specs those of the devices. Where a family has none there is no
// file, unless it is to be kept.
func (s *specs) write(held items, edits map[string]device.Edits, keep []string) error {
	byFamily := map[string]*cdispec.Spec{}
	for _, i := range held {
		family := i.family.Name()
		spec := byFamily[family]
		if spec == nil {
			spec = &cdispec.Spec{Kind: s.kind(family)}
			byFamily[family] = spec
		}
		needed := edits[i.id]
		if needed.Common != nil {
			spec.ContainerEdits = *needed.Common
		}
		d := cdispec.Device{Name: i.id}
		if needed.Device != nil {
			d.ContainerEdits = *needed.Device
		}
		spec.Devices = append(spec.Devices, d)
	}
	var errs []error
	for family, spec := range byFamily {
		if err := s.writeSpec(s.path(family), spec); err != nil {
			errs = append(errs, fmt.Errorf("write the CDI spec of the device plugin: %w: see that %s can be written and has room", err, s.dir))
		}
	}
	return errors.Join(append(errs, s.removeOthers(byFamily, keep))...)
}

func (s *specs) writeSpec(path string, spec *cdispec.Spec) error {
	version, err := cdispec.MinimumRequiredVersion(spec)
	if err != nil {
		return err
	}
	spec.Version = version
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return replace(path, data)
}

// removeOthers removes the specs of families that have no device here. It keeps
// those of families of which something is held that is not there at the moment: a
// container may start again before it is.
func (s *specs) removeOthers(byFamily map[string]*cdispec.Spec, keep []string) error {
	files, err := filepath.Glob(s.path("*"))
	if err != nil {
		return fmt.Errorf("list the CDI specs of the device plugin: %w", err)
	}
	wanted := map[string]bool{}
	for family := range byFamily {
		wanted[s.path(family)] = true
	}
	for _, family := range keep {
		wanted[s.path(family)] = true
	}
	for _, path := range files {
		if wanted[path] {
			continue
		}
		if err := wholefile.Remove(path); err != nil {
			return fmt.Errorf("remove a CDI spec of the device plugin: %w", err)
		}
		if err := faultpoint.At(faultpoint.DevicePluginFilesGone); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a file that others, who may look at any time, see whole or not
// at all. It writes nothing that is there already.
func replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// Runtimes and CNI plugins read it as any user. They read only .json and
	// .yaml, so never what is not whole yet.
	return wholefile.Update(path, data, wholefile.Options{
		Mode:    0o644,
		Written: func() error { return faultpoint.At(faultpoint.DevicePluginFile) },
	})
}
