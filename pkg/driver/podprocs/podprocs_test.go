package podprocs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Lines of /proc/<pid>/cgroup as kubelet's two cgroup drivers make them, on
// cgroup v1 and v2, seen from the host and from a cgroup namespace.
const (
	cgroupfsV1 = "5:devices:/kubepods/besteffort/pod11111111-aaaa-bbbb-cccc-000000000001/abc\n0::/init\n"
	systemdV2  = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod22222222_aaaa_bbbb_cccc_000000000002.slice/cri-containerd-abc.scope\n"
	relative   = "0::/../../pod33333333-aaaa-bbbb-cccc-000000000003/abc\n"
)

func TestRunning(t *testing.T) {
	root := t.TempDir()
	for path, content := range map[string]string{
		"1/cgroup": "0::/init.scope\n", "7/cgroup": cgroupfsV1, "8/cgroup": cgroupfsV1, "9/cgroup": systemdV2, "10/cgroup": relative,
		"self/cgroup": "0::/pod44444444-aaaa-bbbb-cccc-000000000004\n",
	} {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "11"), 0o755); err != nil { // ended between two looks
		t.Fatal(err)
	}
	one, two := types.UID("11111111-aaaa-bbbb-cccc-000000000001"), types.UID("22222222-aaaa-bbbb-cccc-000000000002")
	three, four := types.UID("33333333-aaaa-bbbb-cccc-000000000003"), types.UID("44444444-aaaa-bbbb-cccc-000000000004")
	got, err := New(root).Running([]types.UID{four, three, two, one})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]types.UID{three, two, one}, got); diff != "" {
		t.Errorf("unexpected running pods (-want +got):\n%s", diff)
	}
}

// An empty process table must not read as "nothing runs".
func TestNoProcfs(t *testing.T) {
	_, err := New(t.TempDir()).Running([]types.UID{"a"})
	if err == nil || !strings.Contains(err.Error(), "not the host's procfs") {
		t.Errorf("want an error, got %v", err)
	}
}

// Those who ask while a look goes on share the next one: the one that goes on
// may have passed their processes by.
func TestOneLookForAllWhoWait(t *testing.T) {
	root := t.TempDir()
	cgroup := filepath.Join(root, "7", "cgroup")
	if err := os.Mkdir(filepath.Dir(cgroup), 0o755); err != nil {
		t.Fatal(err)
	}
	// Who opens it waits until the test writes to it.
	if err := unix.Mkfifo(cgroup, 0o600); err != nil {
		t.Fatal(err)
	}
	answer := func(content string) {
		t.Helper()
		if err := os.WriteFile(cgroup, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	table := New(root)
	ask := func(pod types.UID) chan []types.UID {
		running := make(chan []types.UID, 1)
		go func() {
			pods, err := table.Running([]types.UID{pod})
			if err != nil {
				t.Error(err)
			}
			running <- pods
		}()
		return running
	}
	waiting := func(n int) {
		t.Helper()
		err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
			table.mu.Lock()
			defer table.mu.Unlock()
			return table.looking && (n == 0 && table.next == nil || table.next != nil && len(table.next.pods) == n), nil
		})
		if err != nil {
			t.Fatalf("never %d pods asked for: %v", n, err)
		}
	}
	early := ask("one")
	waiting(0)
	late := []chan []types.UID{ask("one"), ask("two")}
	waiting(2)
	answer("0::/kubepods/podthree\n")
	if got := <-early; len(got) > 0 {
		t.Errorf("the first look found %v", got)
	}
	answer("0::/kubepods/podone/podtwo\n")
	for n, want := range []types.UID{"one", "two"} {
		if got := <-late[n]; !cmp.Equal(got, []types.UID{want}) {
			t.Errorf("the second look found %v, want %s", got, want)
		}
	}
}
