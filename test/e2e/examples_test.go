package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// exampleTests say for each file below examples/ what a user sees after
// applying it.
func exampleTests() map[string]func(s *space) {
	return map[string]func(s *space){
		"aligned-by-constraints.yaml": func(s *space) {
			s.wait("aligned-by-constraints", harness.Succeeded())
			wantDistinct(s.t, s.gpus("aligned-by-constraints", "gpus", gpusPerNode))
			s.wantPrinted("aligned-by-constraints", "nics", "net1", "net8")
		},
		"aligned-pairs.yaml": func(s *space) {
			s.wait("aligned-pairs", harness.Running())
			s.wantAligned("aligned-pairs", 2)
			wantDistinct(s.t, s.gpus("aligned-pairs", "gpus", 2))
			s.wantPrinted("aligned-pairs", "nics", "net1", "net2")
		},
		"gpu-test-job.yaml": func(s *space) {
			text := s.job("gpu-test", "cuda")
			for _, want := range []string{"NVIDIA-SMI", "NVIDIA H200"} {
				if !strings.Contains(text, want) {
					s.t.Errorf("nvidia-smi did not print %q; it printed:\n%s", want, text)
				}
			}
		},
		"ml-training-job.yaml": func(s *space) {
			text := s.job("ml-training-job", "training")
			if got := harness.GPUs(text); len(got) != 1 {
				s.t.Errorf("the job sees %d GPUs, want 1; it printed:\n%s", len(got), text)
			}
			if !strings.Contains(text, "NVIDIA_VISIBLE_DEVICES=void\n") {
				s.t.Errorf("NVIDIA_VISIBLE_DEVICES is not void, so that the nvidia runtime would add other GPUs; the job printed:\n%s", text)
			}
		},
		"one-gpu.yaml": func(s *space) {
			s.wait("one-gpu", harness.Succeeded())
			s.gpus("one-gpu", "cuda", 1)
		},
		"prefer-h200.yaml": func(s *space) {
			s.wait("prefer-h200", harness.Succeeded())
			s.gpus("prefer-h200", "cuda", 1)
			if text := s.logs("prefer-h200", "cuda"); !strings.Contains(text, "NVIDIA H200") {
				s.t.Errorf("the pod did not get an H200; it printed:\n%s", text)
			}
		},
		"two-containers-one-gpu.yaml": func(s *space) {
			s.wait("two-containers-one-gpu", harness.Succeeded())
			first := s.gpus("two-containers-one-gpu", "first", 1)
			second := s.gpus("two-containers-one-gpu", "second", 1)
			if diff := cmp.Diff(first, second); diff != "" {
				s.t.Errorf("the containers see different GPUs (-first +second):\n%s", diff)
			}
		},
		"two-pods-one-gpu.yaml": func(s *space) {
			s.wait("two-pods-one-gpu-a", harness.Running())
			s.wait("two-pods-one-gpu-b", harness.Running())
			a := s.gpus("two-pods-one-gpu-a", "list-gpus", 1)
			b := s.gpus("two-pods-one-gpu-b", "list-gpus", 1)
			if diff := cmp.Diff(a, b); diff != "" {
				s.t.Errorf("the pods see different GPUs (-a +b):\n%s", diff)
			}
		},
		"vf-host-local.yaml": func(s *space) {
			s.wait("vf-host-local", harness.Succeeded())
			s.wantPrinted("vf-host-local", "main", "net1", "192.168.30.1")
		},
		"vf-rdma.yaml": func(s *space) {
			s.wait("vf-rdma", harness.Succeeded())
			s.wantPrinted("vf-rdma", "main", "uverbs", "rdma_cm")
		},
		"vf-several.yaml": func(s *space) {
			s.wait("vf-several", harness.Succeeded())
			s.wantPrinted("vf-several", "first", "left", "192.168.20.1/24")
			s.wantPrinted("vf-several", "main", "192.168.20.1/24", "192.168.21.1/24")
			s.wantPrinted("vf-several", "routes", "10.20.0.0/16 via 192.168.21.254 dev right")
		},
		"vf-static-address.yaml": func(s *space) {
			s.wait("vf-static-address-b", harness.Succeeded())
			s.wantPrinted("vf-static-address-b", "main", "64 bytes from 192.168.10.1")
		},
		"vf-vlan.yaml": func(s *space) {
			s.wait("vf-vlan-b", harness.Succeeded())
			s.wantPrinted("vf-vlan-b", "main", "64 bytes from 192.168.100.1")
		},
		"whole-machine.yaml": func(s *space) {
			s.wait("whole-machine", harness.Succeeded())
			wantDistinct(s.t, s.gpus("whole-machine", "cuda", gpusPerNode))
		},
	}
}

// examplesForRealVFs need SR-IOV hardware, or what emulates it: they are run in
// test/vm.
func examplesForRealVFs() []string {
	return []string{"vf-conflist.yaml", "vf-nad.yaml", "vf-vfio.yaml"}
}

// examplesForTheController need devices that the controller gives away: they are
// run in test/controller.
func examplesForTheController() []string {
	return []string{"managed-gang.yaml", "managed-gpu.yaml"}
}

// examplesForTheDevicePlugin need a node whose devices are extended resources: they
// are run in deviceplugin_test.go.
func examplesForTheDevicePlugin() []string {
	return []string{"device-plugin-gpu.yaml", "device-plugin-vf.yaml"}
}

func TestEachExampleDoesWhatItSays(t *testing.T) {
	tests := exampleTests()
	files, err := filepath.Glob(filepath.Join(cluster.Root, "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := slices.Concat(examplesForRealVFs(), examplesForTheController(), examplesForTheDevicePlugin())
	if len(files) != len(tests)+len(elsewhere) {
		t.Errorf("there are %d examples, %d tests of examples here and %d elsewhere", len(files), len(tests), len(elsewhere))
	}
	for _, file := range files {
		name := filepath.Base(file)
		if slices.Contains(elsewhere, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "aligned-pairs.yaml" {
				needPairs(t)
			}
			check, ok := tests[name]
			if !ok {
				t.Fatalf("no test says what a user sees after applying examples/%s", name)
			}
			s := newSpace(t, nil)
			if err := cluster.Apply(s.ctx, s.name, filepath.Join("examples", name)); err != nil {
				t.Fatal(err)
			}
			check(s)
		})
	}
}

func TestEachExampleTellsWhatItShows(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(cluster.Root, "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		apply := "kubectl apply -f examples/" + filepath.Base(file)
		if !strings.HasPrefix(string(content), "# ") || !strings.Contains(string(content), apply) {
			t.Errorf("%s does not begin with a comment that has the line %q", filepath.Base(file), apply)
		}
	}
}

func TestTheTrainingExampleTakesNoGPUThatIsTooSmallOrTooOld(t *testing.T) {
	const file = "examples/ml-training-job.yaml"
	content, err := os.ReadFile(filepath.Join(cluster.Root, file))
	if err != nil {
		t.Fatal(err)
	}
	// A GPU of the node has 143771Mi, and its driver knows CUDA 12.4.
	tests := map[string]struct{ asks, more string }{
		"too little memory": {asks: "quantity('16Gi')", more: "quantity('200Gi')"},
		"too old a driver":  {asks: "semver('12.2.0')", more: "semver('13.0.0')"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if strings.Count(string(content), test.asks) != 1 {
				t.Fatalf("%s does not ask for %s", file, test.asks)
			}
			changed := filepath.Join(t.TempDir(), "job.yaml")
			if err := os.WriteFile(changed, []byte(strings.Replace(string(content), test.asks, test.more, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			s := newSpace(t, nil)
			if err := cluster.Apply(s.ctx, s.name, changed); err != nil {
				t.Fatal(err)
			}
			s.wait(s.podOfJob("ml-training-job"), harness.Unschedulable())
		})
	}
}

// podOfJob returns the name of the job's pod, once it has one.
func (s *space) podOfJob(job string) (name string) {
	s.t.Helper()
	s.eventually("job "+job+" has a pod", func(ctx context.Context) (bool, error) {
		pods, err := cluster.Client.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
		if err != nil || len(pods.Items) == 0 {
			return false, err
		}
		name = pods.Items[0].Name
		return true, nil
	})
	return name
}

// job returns what the job's one pod printed, once the job is complete.
func (s *space) job(name, container string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	pod, err := cluster.WaitJob(ctx, s.name, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.logs(pod.Name, container)
}

// wantPrinted fails the test unless the container printed all of the texts.
func (s *space) wantPrinted(pod, container string, texts ...string) {
	s.t.Helper()
	printed := s.logs(pod, container)
	for _, text := range texts {
		if !strings.Contains(printed, text) {
			s.t.Errorf("container %s of pod %s did not print %q; it printed:\n%s", container, pod, text, printed)
		}
	}
}

// wantDistinct fails the test if a GPU is in the list twice.
func wantDistinct(t *testing.T, uuids []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, uuid := range uuids {
		if seen[uuid] {
			t.Errorf("GPU %s is given twice: %v", uuid, uuids)
		}
		seen[uuid] = true
	}
}
