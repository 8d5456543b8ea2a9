package noclaims

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// patience is how long a test waits for one thing.
const patience = 2 * time.Minute

// site is a test on the cluster, with a namespace for its pods.
type site struct {
	t         *testing.T
	ctx       context.Context
	namespace string
}

func newSite(t *testing.T) *site {
	t.Helper()
	// What fails is looked at, and cleaned up, after the test has ended.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &site{t: t, ctx: ctx, namespace: "users"}
	t.Cleanup(func() {
		defer cancel()
		if t.Failed() {
			var report bytes.Buffer
			cluster.Report(ctx, &report)
			t.Log(report.String())
		}
	})
	s.kubectl("create", "namespace", s.namespace)
	s.must(cluster.WaitNamespace(s.patient(), s.namespace))
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// patient returns a context for waiting for one thing.
func (s *site) patient() context.Context {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	s.t.Cleanup(cancel)
	return ctx
}

// until waits until check returns nil.
func (s *site) until(what string, check func() error) {
	s.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(s.ctx, 100*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		s.t.Fatalf("never %s: %v", what, last)
	}
}

// kubectl runs kubectl and returns what it prints.
func (s *site) kubectl(args ...string) string {
	s.t.Helper()
	out, err := cluster.Kubectl(s.ctx, args...)
	s.must(err)
	return out
}

// helm runs helm in the repository's root and returns all that it prints.
func (s *site) helm(args ...string) (string, error) {
	s.t.Helper()
	program := os.Getenv("HELM_BIN")
	if program == "" {
		program = filepath.Join(cluster.Root, "bin", "helm")
	}
	ctx, cancel := context.WithTimeout(s.ctx, 2*patience)
	defer cancel()
	command := exec.CommandContext(ctx, program, args...)
	command.Dir = cluster.Root
	command.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig)
	for _, name := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		command.Env = append(command.Env, name+"="+s.t.TempDir())
	}
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// run makes a pod that has so many of a resource and lives on.
func (s *site) run(name, resourceName string, count int64) {
	s.t.Helper()
	_, err := cluster.Client.CoreV1().Pods(s.namespace).Create(s.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers: []corev1.Container{{
				Name: "work", Image: "nvidia/cuda:12.3.0-base-ubuntu22.04", Command: []string{"sleep", "infinity"},
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceName(resourceName): *resource.NewQuantity(count, resource.DecimalSI)}},
			}},
		},
	}, metav1.CreateOptions{})
	s.must(err)
}

// await returns the pod once the condition is met.
func (s *site) await(name string, want harness.PodCondition) *corev1.Pod {
	s.t.Helper()
	pod, err := cluster.WaitPod(s.patient(), s.namespace, name, want)
	s.must(err)
	return pod
}

// gpus returns the UUIDs of the GPUs that a running pod sees.
func (s *site) gpus(pod string) []string {
	s.t.Helper()
	return harness.GPUs(s.kubectl("exec", "-n", s.namespace, pod, "--", "nvidia-smi", "-L"))
}

// awaitAllocatable waits until the node has so many of a resource to give.
func (s *site) awaitAllocatable(name string, want int64) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d %s to give", want, name), func() error {
		nodes, err := cluster.Client.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if left := nodes.Items[0].Status.Allocatable[corev1.ResourceName(name)]; left.Value() != want {
			return fmt.Errorf("the node has %s", left.String())
		}
		return nil
	})
}
