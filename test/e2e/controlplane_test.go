package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

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

// Control planes of Kubernetes 1.34 and 1.35 keep neither counters nor taints.
func TestAnOldControlPlaneGetsSingleDevicesAndAllOnceItIsUpgraded(t *testing.T) {
	s := newSpace(t, nil)
	s.waitPairs()
	upgraded := false
	upgrade := func() {
		if upgraded {
			return
		}
		upgraded = true
		s.setGates("true")
		start := time.Now()
		s.waitPairs()
		t.Logf("%v after the upgrade all devices were there", time.Since(start).Round(time.Second))
	}
	t.Cleanup(upgrade)
	s.setGates("false")
	s.rollPlugin() // an old control plane has never seen anything else

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
			if want := slice.Spec.Pool.ResourceSliceCount; int(want) != len(all) {
				return fmt.Errorf("slice %s is of a pool of %d, there are %d", slice.Name, want, len(all))
			}
		}
		if kinds["gpu"] != gpusPerNode || kinds["vf"] != vfsPerNode || len(kinds) != 2 {
			return fmt.Errorf("published: %v", kinds)
		}
		return nil
	})
	pod, err := cluster.PluginPod(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	log, err := cluster.Logs(s.ctx, pod.Namespace, pod.Name, harness.PluginContainer)
	if err != nil {
		t.Fatal(err)
	}
	if said := strings.Count(log, "does not keep the counters of devices: only single devices are published"); said != 1 {
		t.Errorf("the log says %d times that pairs are missing, want once", said)
	}
	if metrics := pluginSays(t, "/metrics"); !strings.Contains(metrics, fmt.Sprintf("eks_hybrid_dra_withheld_pairs %d", gpusPerNode)) {
		t.Error("the metrics do not say that pairs are missing")
	}
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
