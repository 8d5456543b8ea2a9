package guest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestExamplesDoWhatTheySay(t *testing.T) {
	tests := []struct {
		example string
		// prepare, if any, comes before the example.
		prepare, check func(s *space)
	}{
		{"vf-static-address", nil, func(s *space) {
			s.wait("vf-static-address-b", harness.Succeeded())
			s.wantPrinted("vf-static-address-b", "main", "64 bytes from 192.168.10.1")
		}},
		{"vf-nad", nil, func(s *space) {
			s.wait("vf-nad", harness.Succeeded())
			s.wantPrinted("vf-nad", "main", "net1", "192.168.40.")
		}},
		{"vf-conflist", nil, func(s *space) {
			s.wait("vf-conflist", harness.Succeeded())
			s.wantPrinted("vf-conflist", "main", "net1", "192.168.50.1/24", "mtu 1400")
		}},
		{"vf-vfio", func(s *space) {
			// VFs behind the switch cannot be given to a program each, since the
			// kernel cannot keep them apart: nobody is to get one of them.
			s.template("switched", vfs(6, "", ofNUMANode(0)))
			s.create(vfPod("switched", "switched"))
			s.wait("switched", harness.Running())
		}, func(s *space) {
			s.wait("vf-vfio", harness.Succeeded())
			s.wantPrinted("vf-vfio", "main", "vfio")
		}},
	}
	for _, test := range tests {
		t.Run(test.example, func(t *testing.T) {
			s := newSpace(t)
			s.waitPublished()
			before := s.host()
			if test.prepare != nil {
				test.prepare(s)
			}
			s.apply(test.example)
			test.check(s)
			s.end()
			s.wantHost(before)
		})
	}
}

// An RDMA device in software stands in for that of a NIC.
func TestTheRDMAExampleDoesWhatItSays(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	name := s.guest("ls", "/sys/bus/pci/devices/"+rootedVF+"/net")
	s.guest("ip", "link", "set", name, "up")
	s.guest("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", name)
	t.Cleanup(func() {
		s.guest("rdma", "link", "delete", "rxe0")
		s.guest("ip", "link", "set", name, "down")
		s.waitRDMA("")
	})
	s.waitRDMA("rxe0")
	s.apply("vf-rdma")
	s.wait("vf-rdma", harness.Succeeded())
	s.wantPrinted("vf-rdma", "main", "uverbs0")
	s.end()
}

// waitRDMA waits until the VF in the root port is published with the RDMA
// device, or none.
func (s *space) waitRDMA(device string) {
	s.t.Helper()
	s.until("published with the RDMA device "+device, func() error {
		vf := s.published()[rootedVF]
		if rdma := value(vf, "rdma"); value(vf, "rdmaDevice") != device || rdma != fmt.Sprint(device != "") {
			return fmt.Errorf("it has rdma=%s, rdmaDevice=%s", rdma, value(vf, "rdmaDevice"))
		}
		return nil
	})
}

// apply applies an example as it is.
func (s *space) apply(example string) {
	s.t.Helper()
	if err := world.Apply(s.ctx, s.name, filepath.Join("examples", example+".yaml")); err != nil {
		s.t.Fatal(err)
	}
}

// end deletes all pods, and returns when they and their claims are gone.
func (s *space) end() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if _, err := world.Kubectl(ctx, "delete", "pods", "-n", s.name, "--all", "--wait=false"); err != nil {
		s.t.Fatal(err)
	}
	if err := world.WaitPodsGone(ctx, s.name); err != nil {
		s.t.Fatal(err)
	}
	s.until("without claims", func() error {
		left, err := world.Kubectl(s.ctx, "get", "resourceclaims", "-n", s.name, "-o", "name")
		if err == nil && strings.TrimSpace(left) != "" {
			err = fmt.Errorf("there are %s", strings.Fields(left))
		}
		return err
	})
}
