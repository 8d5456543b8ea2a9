package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Nothing fails when a pod has a claim that none of its containers lists: the
// claim has to say it.
func TestAVFThatNoContainerListsIsSaidToBeNotAttached(t *testing.T) {
	t.Parallel()
	s := newSpace(t, unchecked())
	s.template("one", vfs(1, ""))
	pod := vfPod("forgetful", "one")
	pod.Spec.Containers[0].Resources.Claims = nil
	s.create(pod)
	s.wait("forgetful", harness.Running())
	if shown := s.exec("forgetful", "ip", "address", "show"); strings.Contains(shown, "net1") {
		t.Errorf("the pod has an interface that none of its containers asks for:\n%s", shown)
	}
	var ready *metav1.Condition
	// The plugin looks once a minute, and has to see the pod twice.
	eventuallyWithin(t, 3*time.Minute, "said to be not attached", func() error {
		status := s.claim("forgetful").Status.Devices
		if len(status) != 1 {
			return fmt.Errorf("the claim's status has %+v", status)
		}
		if ready = meta.FindStatusCondition(status[0].Conditions, "Ready"); ready == nil {
			return fmt.Errorf("the device's conditions are %+v", status[0].Conditions)
		}
		return nil
	})
	if ready.Status != metav1.ConditionFalse || ready.Reason != "NotAttached" || !strings.Contains(ready.Message, "resources.claims") {
		t.Errorf("the condition is %+v", ready)
	}
	plugin, err := cluster.PluginPod(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	log, err := cluster.Logs(s.ctx, plugin.Namespace, plugin.Name, harness.PluginContainer)
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	for line := range strings.Lines(log) {
		if strings.Contains(line, "No container has started with the devices of a claim yet") && strings.Contains(line, s.name+"/") {
			said++
		}
	}
	if said != 1 {
		t.Errorf("the log says it %d times, want once", said)
	}

	// The next pod that lists it gets the VF.
	s.delete("forgetful")
	s.waitGone("forgetful")
	s.create(vfPod("mindful", "one"))
	s.wait("mindful", harness.Running())
	s.wantInterface("mindful", "net1")
}
