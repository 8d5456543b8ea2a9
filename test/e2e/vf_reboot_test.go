package e2e

import (
	"context"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// A reboot resets the NICs: what was set up on them before is gone.
func TestAPodRunsAgainWithItsVFAfterAReboot(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", vfs(1, `"vlan":177,"addresses":["10.77.0.1/24"]`))
	s.template("peer", vfs(1, `"vlan":177,"addresses":["10.77.0.2/24"]`))
	s.create(vfPod("user", "one"))
	s.create(vfPod("peer", "peer"))
	user := harness.ContainerID(s.wait("user", harness.Running()), "work")
	peer := harness.ContainerID(s.wait("peer", harness.Running()), "work")
	vf := s.allocatedVF("user")

	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	needNode(t, cluster.Reboot(ctx))
	s.wait("user", runsAnew("work", user))
	s.wait("peer", runsAnew("work", peer))
	s.wantInterface("user", "net1", "10.77.0.1/24")
	if now := s.allocatedVF("user"); now != vf {
		t.Errorf("the pod has VF %s, had %s before the reboot", now, vf)
	}
	if err := s.pings("peer", "10.77.0.1"); err != nil {
		t.Errorf("the pods' VFs are not in one VLAN any more: %v", err)
	}
	s.waitDriver()
	s.wantVFsPublished()
}
