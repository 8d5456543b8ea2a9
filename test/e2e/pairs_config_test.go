package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/api/metadata"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/dynamic-resource-allocation/devicemetadata"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestTheConfigurationDecidesWhatIsAPairAndWhetherNCCLIsTold(t *testing.T) {
	s := newSpace(t, nil)
	s.waitPairs()
	s.configure(`pairing:
  pairs:
  - {gpu: "0000:1b:00.0", nic: "0000:40:00.0"}
  - {gpu: "0000:43:00.0"}
  - {gpu: "0000:1c:00.0"}
nccl: {setIBHCA: true}`)
	pairNamed := map[string]resourceapi.Device{}
	s.until("published as configured", func() error {
		clear(pairNamed)
		for _, d := range published(t, pairType) {
			pairNamed[d.Name] = d
		}
		if _, there := pairNamed["gpu-1-vf"]; there || len(pairNamed) != gpusPerNode-1 {
			return fmt.Errorf("%d pairs are published, that of gpu-1 among them: %v", len(pairNamed), there)
		}
		return nil
	})
	vf := func(pair string) string { return value(pairNamed[pair].Attributes["vfPCIBusID"]) }
	if at := vf("gpu-0-vf"); !strings.HasPrefix(at, "0000:40:") || value(pairNamed["gpu-0-vf"].Attributes["alignment"]) != "NODE" {
		t.Errorf("the pair of gpu-0 has VF %s", at)
	}
	metrics := pluginSays(t, "/metrics")
	for _, want := range []string{
		`gpu="gpu-0",nic="0000:40:00.0",reason="decided by the configuration; they are NODE"`,
		`gpu="gpu-1",nic="",reason="left alone by the configuration"`,
		`gpu="0000:1c:00.0",nic="",reason="the configuration names it, and no GPU that is served has that address"`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics do not say %s", want)
		}
	}

	// The order of the claim's GPUs is not that of their numbers.
	claim := pairs(1, "device.attributes['eks-hybrid-dra'].index == 7")
	claim.Devices.Requests[0].Name = "last"
	claim.Devices.Requests = append(claim.Devices.Requests, pairs(1, "device.attributes['eks-hybrid-dra'].index == 0").Devices.Requests...)
	claim.Devices.Requests[1].Name = "first"
	claim.Devices.Config = vfs(1, `"mode":"rdma"`).Devices.Config
	s.template("two", claim)
	s.pod("user", "two")
	s.wait("user", harness.Running())
	rdma := func(pair string) string { return value(pairNamed[pair].Attributes["rdmaDevice"]) }
	want := fmt.Sprintf("NCCL_IB_HCA==%s,%s", rdma("gpu-7-vf"), rdma("gpu-0-vf"))
	if environment := strings.Split(s.exec("user", "cat", "/proc/1/environ"), "\x00"); !slices.Contains(environment, want) {
		t.Errorf("want %s, the container has %q", want, environment)
	}
	for request, told := range map[string][]string{"last": {"PXB", vf("gpu-7-vf")}, "first": {"NODE", vf("gpu-0-vf")}} {
		if diff := cmp.Diff(told, s.alignmentInFile("user", request)); diff != "" {
			t.Errorf("the metadata file of request %s (-want +got):\n%s", request, diff)
		}
	}
	s.until("told by the claim's status", func() error {
		for _, d := range s.claim("user").Status.Devices {
			var a alignment
			if d.Device == "gpu-0-vf" && d.Data != nil && json.Unmarshal(d.Data.Raw, &a) == nil {
				for _, p := range a.Alignment {
					if p.VF == vf("gpu-0-vf") && p.Relation == "NODE" {
						return nil
					}
				}
			}
		}
		return errors.New("not yet")
	})
}

// alignmentInFile returns what a container finds in the metadata file of a
// request: how near the nearest is to its device, and where that is.
func (s *space) alignmentInFile(pod, request string) []string {
	s.t.Helper()
	text := s.exec(pod, "cat", fmt.Sprintf("%s/resourceclaimtemplates/gpu/%s/%s-metadata.json", metadata.ContainerDir, request, harness.DriverName))
	var file metadata.DeviceMetadata
	if err := devicemetadata.DecodeMetadataFromStream(json.NewDecoder(strings.NewReader(text)), &file); err != nil {
		s.t.Fatalf("decoding the file: %v; it has:\n%s", err, text)
	}
	if len(file.Requests) != 1 || len(file.Requests[0].Devices) != 1 {
		s.t.Fatalf("the file does not describe exactly one device:\n%s", text)
	}
	attributes := file.Requests[0].Devices[0].Attributes
	if own, nearest := attributes[deviceattribute.StandardDeviceAttributePCIBusID], attributes["nearestPCIBusID"]; value(own) == value(nearest) {
		s.t.Errorf("%s is told to be nearest to itself", value(own))
	}
	return []string{value(attributes["alignment"]), value(attributes["nearestPCIBusID"])}
}
