package e2e

import (
	"slices"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestAdminAccessSeesAGPUInUseAndItsEndDoesNotFreeIt(t *testing.T) {
	user := newSpace(t, nil)
	user.template("one", gpus(1))
	user.pod("user", "one")
	user.wait("user", harness.Running())
	used := user.gpus("user", "show", 1)[0]

	admin := newSpace(t, map[string]string{"resource.kubernetes.io/admin-access": "true"})
	admin.template("all", allGPUsAsAdmin())
	admin.pod("admin", "all")
	admin.wait("admin", harness.Running())
	if seen := admin.gpus("admin", "show", gpusPerNode); !slices.Contains(seen, used) {
		t.Errorf("the admin's pod does not see %s, which another pod uses; it sees %v", used, seen)
	}
	admin.delete("admin")
	admin.waitGone("admin")

	if seen := harness.GPUs(user.exec("user", "nvidia-smi", "-L")); !slices.Equal(seen, []string{used}) {
		t.Errorf("after the admin's pod the user's pod sees %v, want %s", seen, used)
	}
	user.template("same", gpus(1, byUUID(used)))
	user.pod("rival", "same")
	user.wait("rival", harness.Unschedulable())
	user.delete("user")
	user.wait("rival", harness.Running())
}
