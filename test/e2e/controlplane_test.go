package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// setGates gives the control plane other feature gates.
func (s *space) setGates(value string) {
	s.t.Helper()
	var gates []string
	for _, gate := range []string{"DRAPartitionableDevices", "DRADeviceTaints", "DRADeviceTaintRules"} {
		gates = append(gates, gate+"="+value)
	}
	for _, component := range []harness.Component{harness.APIServer, harness.Scheduler} {
		needNode(s.t, cluster.RestartWith(s.ctx, component, strings.Join(gates, ",")))
	}
}

// downgrade replaces the control plane by one as of Kubernetes 1.34 or 1.35,
// which keeps neither counters nor taints, and returns what upgrades it again.
func (s *space) downgrade() (upgrade func()) {
	s.t.Helper()
	upgraded := false
	upgrade = func() {
		if upgraded {
			return
		}
		upgraded = true
		s.setGates("true")
		start := time.Now()
		s.waitPairs()
		s.t.Logf("%v after the upgrade all devices were there", time.Since(start).Round(time.Second))
	}
	s.t.Cleanup(upgrade)
	s.setGates("false")
	return upgrade
}

// waitSingles waits until so many GPUs and VFs are published, without pairs and
// counters, and fails the test when the pool is whole and neither that nor as
// before.
func (s *space) waitSingles(gpus, vfs int) {
	s.t.Helper()
	s.until("single devices are published, all of them", func() error {
		all, err := cluster.Slices(s.ctx)
		if err != nil {
			return err
		}
		kinds := map[string]int{}
		for _, slice := range all {
			for _, d := range slice.Spec.Devices {
				kinds[value(d.Attributes["type"])]++
			}
			if len(slice.Spec.SharedCounters) > 0 {
				kinds["set"]++
			}
			if pool := slice.Spec.Pool; int(pool.ResourceSliceCount) != len(all) || pool.Generation != all[0].Spec.Pool.Generation {
				return fmt.Errorf("slice %s is of %d of generation %d, there are %d", slice.Name, pool.ResourceSliceCount, pool.Generation, len(all))
			}
		}
		before := kinds["gpu"] == gpusPerNode && kinds["vf"] == vfsPerNode && kinds["gpu-vf"] == gpusPerNode && kinds["set"] > 0
		if err := fmt.Errorf("published: %v", kinds); before {
			return err
		}
		if kinds["gpu"] != gpus || kinds["vf"] != vfs || len(kinds) != 2 {
			s.t.Fatalf("published is half of it: %v", kinds)
		}
		return nil
	})
	pod, err := cluster.PluginPod(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	log, err := cluster.Logs(s.ctx, pod.Namespace, pod.Name, harness.PluginContainer)
	if err != nil {
		s.t.Fatal(err)
	}
	if said := strings.Count(log, "does not keep the counters of devices: only single devices are published"); said != 1 {
		s.t.Errorf("the log says %d times that pairs are missing, want once", said)
	}
	if metrics := pluginSays(s.t, "/metrics"); !strings.Contains(metrics, fmt.Sprintf("eks_hybrid_dra_withheld_pairs %d\n", gpusPerNode)) {
		s.t.Error("the metrics do not say that pairs are missing")
	}
}

func TestAnOldControlPlaneGetsSingleDevicesAndAllOnceItIsUpgraded(t *testing.T) {
	s := newSpace(t, nil)
	s.waitPairs()
	upgrade := s.downgrade()
	s.rollPlugin() // an old control plane has never seen anything else
	s.waitSingles(gpusPerNode, vfsPerNode)
	s.template("pair", pairs(1))
	s.template("gpu", gpus(1))
	s.template("vf", vfs(1, ""))
	s.pod("gpu", "gpu")
	s.pod("vf", "vf", "ip", "address", "show")
	s.pod("pair", "pair")
	s.wait("gpu", harness.Running())
	s.wait("vf", harness.Running())
	s.wait("pair", harness.Unschedulable())

	upgrade()
	s.wait("pair", harness.Running())
	s.wantAligned("pair", 1)
}

// Such a control plane goes on showing the counters that it has stored, but its
// scheduler does not look at them.
func TestAControlPlaneThatLosesCountersGetsSingleDevices(t *testing.T) {
	s := newSpace(t, nil)
	s.waitPairs()
	s.rollPlugin() // so that its log is of this test
	s.template("pair", pairs(1))
	s.template("all", gpus(gpusPerNode-1))
	s.template("one", gpus(1))
	s.pod("pair", "pair")
	s.wait("pair", harness.Running())
	has := s.wantAligned("pair", 1)

	upgrade := s.downgrade()
	s.waitSingles(gpusPerNode-1, vfsPerNode-1) // the parts of the pair are nobody's
	s.pod("others", "all")
	s.wait("others", harness.Running())
	wantDistinct(t, append(s.gpus("others", "show", gpusPerNode-1), s.gpus("pair", "show", 1)...))
	s.pod("one-more", "one")
	s.wait("one-more", harness.Unschedulable())
	s.pod("next", "pair")
	s.wait("next", harness.Unschedulable())

	upgrade()
	if diff := cmp.Diff(has, s.wantAligned("pair", 1)); diff != "" {
		t.Errorf("the pair of the pod that ran all the time (-before +after):\n%s", diff)
	}
	s.delete("others")
	s.wait("one-more", harness.Running())
	s.wait("next", harness.Running())
	s.wantAligned("next", 1)
}
