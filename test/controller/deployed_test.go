package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// deployed is a namespace of the cluster as users have it: the controller runs
// in its pods, and the one real node gives all its GPUs to it.
type deployed struct{ *site }

// newDeployed configures the kubelet plugin, and waits until the devices have
// changed hands.
func newDeployed(t *testing.T) *deployed {
	t.Helper()
	newSite(t, 1) // or the test is skipped
	ctx, cancel := context.WithCancel(context.Background())
	namespace, err := cluster.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "users-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := &deployed{&site{t: t, ctx: ctx, name: namespace.Name, class: "managed-gpu.eks-hybrid-dra"}}
	maps := cluster.Client.CoreV1().ConfigMaps(harness.Namespace)
	config, err := maps.Get(ctx, harness.DriverName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const file = "config.yaml"
	configure := func(content string) {
		body, err := json.Marshal(map[string]any{"data": map[string]string{file: content}})
		if err == nil {
			_, err = maps.Patch(ctx, config.Name, types.MergePatchType, body, metav1.PatchOptions{})
		}
		if err == nil {
			_, err = cluster.Kubectl(ctx, "rollout", "restart", "-n", harness.Namespace, "daemonset/"+harness.Plugin)
		}
		if err == nil {
			err = cluster.WaitDriver(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		d.clear()
		d.eventually("the node's devices are free", func() (bool, string) {
			claims := d.list()
			return len(claims) == 0, fmt.Sprint(len(claims))
		})
		configure(config.Data[file])
		cancel()
	})
	if err := cluster.WaitNamespace(ctx, d.name); err != nil {
		t.Fatal(err)
	}
	configure(strings.TrimRight(config.Data[file], "\n") + "\nmanaged: {kinds: [gpu], settle: 5s}\n")
	d.eventually("the node's GPUs are the controller's", func() (bool, string) {
		devices, err := cluster.Devices(ctx)
		if err != nil {
			return false, err.Error()
		}
		n := 0
		for _, device := range devices {
			if ptr.Deref(device.Attributes["allocator"].StringValue, "") == "controller" {
				n++
			}
		}
		return n == gpusPerNode, fmt.Sprint(n)
	})
	return d
}

func (d *deployed) apply(file string) {
	d.t.Helper()
	if err := cluster.Apply(d.ctx, d.name, filepath.Join("examples", file)); err != nil {
		d.t.Fatal(err)
	}
}

func TestExamplesOfManagedClasses(t *testing.T) {
	d := newDeployed(t)
	ctx, cancel := context.WithTimeout(d.ctx, 2*patience)
	defer cancel()
	d.apply("managed-gpu.yaml")
	if _, err := cluster.WaitPod(ctx, d.name, "managed-gpu", harness.Succeeded()); err != nil {
		t.Fatal(err)
	}
	text, err := cluster.Logs(ctx, d.name, "managed-gpu", "cuda")
	if err != nil || len(harness.GPUs(text)) != 2 {
		t.Errorf("the pod printed %q, %v; want two GPUs", text, err)
	}
	d.apply("managed-gang.yaml")
	d.eventually("the job is complete", func() (bool, string) {
		job, err := cluster.Client.BatchV1().Jobs(d.name).Get(ctx, "managed-gang", metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		return job.Status.Succeeded == 4, fmt.Sprint(job.Status)
	})
	pods, err := cluster.Client.CoreV1().Pods(d.name).List(ctx, metav1.ListOptions{LabelSelector: "job-name=managed-gang"})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, pod := range pods.Items {
		text, err := cluster.Logs(ctx, d.name, pod.Name, "worker")
		if err != nil {
			t.Fatal(err)
		}
		for _, uuid := range harness.GPUs(text) {
			if seen[uuid] != "" {
				t.Errorf("GPU %s was given to %s and %s", uuid, seen[uuid], pod.Name)
			}
			seen[uuid] = pod.Name
		}
	}
	if len(seen) != gpusPerNode {
		t.Errorf("the gang saw %d GPUs, want %d", len(seen), gpusPerNode)
	}
}

// The leader is killed while it allocates a gang; the other replica takes over
// when the lease has run out.
func TestTheLeaderIsKilled(t *testing.T) {
	d := newDeployed(t)
	leader := d.leader()
	pod, err := cluster.Client.CoreV1().Pods(harness.Namespace).Get(d.ctx, leader, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.gang("train", gpusPerNode, 0, gpusPerNode, 1)
	if err := cluster.KillContainer(d.ctx, harness.ContainerID(pod, "controller")); err != nil {
		t.Fatal(err)
	}
	d.claim("after", 1, map[string]string{"eks-hybrid-dra/unused-after": "1h"})
	d.eventually("the gang is allocated", func() (bool, string) {
		names := d.withDevices()
		return len(names) == gpusPerNode, fmt.Sprint(names)
	})
	d.noneTwice()
	d.eventually("no plan is left", func() (bool, string) {
		plans, err := cluster.Client.CoreV1().ConfigMaps(harness.Namespace).List(d.ctx, metav1.ListOptions{LabelSelector: "eks-hybrid-dra/gang-plan=true"})
		return err == nil && len(plans.Items) == 0, fmt.Sprint(err)
	})
	if err := cluster.Client.ResourceV1().ResourceClaims(d.name).DeleteCollection(d.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "eks-hybrid-dra/gang"}); err != nil {
		t.Fatal(err)
	}
	d.allocated("after")
}

// leader returns the pod that holds the lease.
func (d *deployed) leader() string {
	d.t.Helper()
	name := ""
	d.eventually("there is a leader", func() (bool, string) {
		lease, err := cluster.Client.CoordinationV1().Leases(harness.Namespace).Get(d.ctx, "eks-hybrid-dra-controller", metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		name, _, _ = strings.Cut(ptr.Deref(lease.Spec.HolderIdentity, ""), "_")
		return name != "", ""
	})
	return name
}
