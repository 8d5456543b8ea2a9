package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestRunningPodsAndSlicesGoOnWhenAComponentIsRestarted(t *testing.T) {
	s := newSpace(t, nil)
	s.template("one", gpus(1))
	s.pod("user", "one")
	before := s.wait("user", harness.Running())
	names := deviceNames(t)
	tests := []struct {
		name    string
		restart func(s *space)
		// absent is for how long the API may be without the node's devices.
		absent time.Duration
	}{
		{name: "the plugin", restart: (*space).rollPlugin},
		{name: "the API server", restart: func(s *space) { s.restart(harness.APIServer) }},
		{name: "containerd", restart: func(s *space) { s.restart(harness.Containerd) }},
		// A kubelet that starts deletes the slices of its node. They are back
		// after a second, or some on a machine that is busy with tests.
		{name: "kubelet", restart: func(s *space) { s.restart(harness.Kubelet) }, absent: 10 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &space{t: t, ctx: s.ctx, name: s.name}
			absence := measureAbsence(s)
			test.restart(s)
			s.pod("later", "one")
			s.wait("later", harness.Running())
			s.gpus("later", "show", 1)
			s.waitDevices()
			absent := absence.Stop()
			t.Logf("the API was without the node's devices for %v", absent)
			if absent > test.absent {
				t.Errorf("the API was without the node's devices for %v, want at most %v", absent, test.absent)
			}
			if diff := cmp.Diff(names, deviceNames(t)); diff != "" {
				t.Errorf("devices (-before the restart +after):\n%s", diff)
			}
			wantSameContainers(t, before, s.wait("user", harness.Running()))
			s.delete("later")
			s.waitGone("later")
		})
	}
}

// rollPlugin replaces the driver's pods, as an update does.
func (s *space) rollPlugin() {
	s.t.Helper()
	s.roll(func() {
		if _, err := cluster.Kubectl(s.ctx, "rollout", "restart", "-n", harness.Namespace, "daemonset/"+harness.Plugin); err != nil {
			s.t.Fatal(err)
		}
	})
}

// waitDriver returns when the driver is ready, and no pod of it is being
// replaced.
func (s *space) waitDriver() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := cluster.WaitDriver(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// waitDevices returns when the API has all the node's devices.
func (s *space) waitDevices() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if _, err := cluster.WaitDevices(ctx, gpusPerNode); err != nil {
		s.t.Fatal(err)
	}
}

// measureAbsence begins to measure for how long the API lacks devices of the
// node.
func measureAbsence(s *space) *harness.Absence {
	s.t.Helper()
	absence, err := cluster.MeasureAbsence(s.ctx, gpusPerNode)
	if err != nil {
		s.t.Fatal(err)
	}
	return absence
}

// wantSameContainers fails the test unless the pod's containers are the ones
// that ran before, and never stopped.
func wantSameContainers(t *testing.T, before, after *corev1.Pod) {
	t.Helper()
	// The health of devices becomes known while a container runs.
	if diff := cmp.Diff(before.Status.ContainerStatuses, after.Status.ContainerStatuses, cmpopts.IgnoreFields(corev1.ContainerStatus{}, "AllocatedResourcesStatus")); diff != "" {
		t.Errorf("containers of pod %s (-before +after):\n%s", after.Name, diff)
	}
}
