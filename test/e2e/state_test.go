package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Where docs/operations.md says that state lies on the node.
const (
	dataDir      = "/var/lib/kubelet/plugins/" + harness.DriverName
	registryDir  = "/var/lib/kubelet/plugins_registry"
	cdiDir       = "/var/run/cdi"
	metadataDir  = dataDir + "/dra-device-metadata"
	simulatedDir = dataDir + "/simulated"
)

// leftOnNode lists what exists only for claims: their state, the devices they
// took, their metadata and their CDI specs; and the sockets of plugins that are
// gone.
func leftOnNode(t *testing.T) []string {
	t.Helper()
	out, err := cluster.OnNode(t.Context(), "find", dataDir, registryDir, cdiDir,
		"-path", simulatedDir, "-prune", "-o", "-print")
	needNode(t, err)
	plugins, err := cluster.PluginPods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fine := []string{
		dataDir, registryDir, cdiDir, metadataDir, dataDir + "/claims", dataDir + "/devices", dataDir + "/unreadable",
		dataDir + "/claims.lock", dataDir + "/allocators.json", dataDir + "/allocators.lock", dataDir + "/device-plugin-kinds.json", dataDir + "/bin", dataDir + "/bin/nvidia-cdi-hook", dataDir + "/bin/attach-hook",
		dataDir + "/attach", dataDir + "/vfs", dataDir + "/spare", dataDir + "/cni", dataDir + "/cni/results",
	}
	for _, pod := range plugins {
		fine = append(fine, fmt.Sprintf("%s/dra-%s.sock", dataDir, pod.UID), fmt.Sprintf("%s/attach/%s.sock", dataDir, pod.UID), fmt.Sprintf("%s/%s-%s-reg.sock", registryDir, harness.DriverName, pod.UID))
	}
	return slices.DeleteFunc(strings.Fields(out), func(path string) bool {
		// A VF's lock stays: another process may be about to take it.
		vfLock := filepath.Dir(path) == dataDir+"/vfs" && filepath.Ext(path) == ".lock"
		// Files for the next claims are kept ready.
		spare := filepath.Dir(path) == dataDir+"/spare"
		return vfLock || spare || slices.Contains(fine, path)
	})
}

// wantNothingLeft waits until nothing is left on the node of any claim.
func wantNothingLeft(t *testing.T) {
	t.Helper()
	eventually(t, "clean", func() error {
		if left := leftOnNode(t); len(left) > 0 {
			return errors.New("left on the node:\n" + strings.Join(left, "\n"))
		}
		return nil
	})
}

// held tells what the driver's files on the node say of each claim: its record,
// and the devices that it took.
func held(t *testing.T) map[types.UID][]string {
	t.Helper()
	out, err := cluster.OnNode(t.Context(), "sh", "-c", "cd "+dataDir+" && { grep --recursive --no-messages . claims devices || true; }")
	needNode(t, err)
	claims := map[types.UID][]string{}
	for line := range strings.Lines(out) {
		path, content, found := strings.Cut(line, ".json:")
		var file struct {
			Claim struct {
				UID types.UID `json:"uid"`
			} `json:"claim"`
		}
		if err := json.Unmarshal([]byte(content), &file); !found || err != nil || file.Claim.UID == "" {
			t.Fatalf("a file on the node is not of a claim: %v: %s", err, line)
		}
		claims[file.Claim.UID] = append(claims[file.Claim.UID], filepath.Base(filepath.Dir(path))+": "+strings.TrimSpace(content))
	}
	for _, files := range claims {
		slices.Sort(files)
	}
	return claims
}

// prepared are the devices of each claim, by its record, and taken those by the
// devices that it took.
func preparedAndTaken(t *testing.T) (prepared, taken map[types.UID][]string) {
	t.Helper()
	type device struct {
		Pool   string `json:"pool"`
		Device string `json:"device"`
	}
	prepared, taken = map[types.UID][]string{}, map[types.UID][]string{}
	for uid, files := range held(t) {
		for _, file := range files {
			_, content, _ := strings.Cut(file, ": ")
			var says struct {
				Devices []device `json:"devices"` // of a record
				Device  device   `json:"device"`  // of something taken
			}
			if err := json.Unmarshal([]byte(content), &says); err != nil {
				t.Fatalf("file of claim %s: %v", uid, err)
			}
			for _, d := range says.Devices {
				prepared[uid] = append(prepared[uid], d.Pool+"/"+d.Device)
			}
			if says.Device.Device != "" {
				taken[uid] = append(taken[uid], says.Device.Pool+"/"+says.Device.Device)
			}
		}
	}
	return sorted(prepared), sorted(taken)
}

// allocated are the devices of each claim, by the API.
func allocated(t *testing.T) map[types.UID][]string {
	t.Helper()
	list, err := cluster.Client.ResourceV1().ResourceClaims(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatalf("listing claims: %v", err)
	}
	claims := map[types.UID][]string{}
	for _, claim := range list.Items {
		if claim.Status.Allocation == nil {
			continue
		}
		for _, result := range claim.Status.Allocation.Devices.Results {
			if result.Driver == harness.DriverName {
				claims[claim.UID] = append(claims[claim.UID], result.Pool+"/"+result.Device)
			}
		}
	}
	return sorted(claims)
}

func sorted(claims map[types.UID][]string) map[types.UID][]string {
	for _, devices := range claims {
		slices.Sort(devices)
	}
	return claims
}

// wantAgreement waits until the API and the node say the same of all claims.
func wantAgreement(t *testing.T) {
	t.Helper()
	eventually(t, "in agreement", func() error {
		api := allocated(t)
		prepared, taken := preparedAndTaken(t)
		if diff := cmp.Diff(api, prepared); diff != "" {
			return fmt.Errorf("claims and their devices (-in the API +in the node's records):\n%s", diff)
		}
		if diff := cmp.Diff(api, taken); diff != "" {
			return fmt.Errorf("claims and their devices (-in the API +taken on the node):\n%s", diff)
		}
		return nil
	})
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	eventuallyWithin(t, patience, what, check)
}

func eventuallyWithin(t *testing.T, most time.Duration, what string, check func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, most, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("never %s: %v", what, last)
	}
}
