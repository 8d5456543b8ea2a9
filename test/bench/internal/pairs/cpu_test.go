package pairs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestProcessorTimeOfTheClustersScheduler(t *testing.T) {
	proc := t.TempDir()
	for pid, files := range map[string][2]string{
		"1": {"/bin/kube-scheduler\x00--kubeconfig=/var/other/etc/x\x00", ""},
		"2": {"/bin/kube-apiserver\x00--kubeconfig=/var/bench/etc/x\x00", ""},
		"3": {"/cache/kube-scheduler\x00--kubeconfig=/var/bench/etc/x\x00", "3 (kube sched) R) S 1 3 3 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1"},
		"4": {"", ""},
	} {
		dir := filepath.Join(proc, pid)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"cmdline", "stat"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(files[i]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := findScheduler(proc, "/var/none/kubeconfig"); !errors.Is(err, errNoScheduler) {
		t.Errorf("of a cluster elsewhere: %v", err)
	}
	process, err := findScheduler(proc, "/var/bench/kubeconfig")
	if err != nil || filepath.Base(process) != "3" {
		t.Fatalf("%s, %v", process, err)
	}
	if took, err := processorTime(process); err != nil || took != 2*time.Second {
		t.Errorf("%v, %v", took, err)
	}
	if _, err := processorTime(filepath.Join(proc, "4")); err == nil {
		t.Error("an empty file has a processor time")
	}
}
