package attach

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

func TestTheMachineIsFullOfVFs(t *testing.T) {
	tree, err := writeTree(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	found, faults, err := nic.Scan(t.Context(), nic.Options{SysfsRoot: tree.root, Host: fakeHost{tree: tree}})
	if err != nil || len(faults) > 0 {
		t.Fatalf("%v, %v", faults, err)
	}
	if len(found.PFs) != ports {
		t.Fatalf("%d ports, want %d", len(found.PFs), ports)
	}
	for _, pf := range found.PFs {
		if pf.Netdev == nil || pf.RDMA == nil || pf.NumVFs != vfsPerPort || len(pf.VFs) != vfsPerPort || pf.SpeedMbps != 400_000 || pf.LinkType != nic.Ether {
			t.Errorf("%s: %+v", pf.Address, pf)
		}
		for i, vf := range pf.VFs {
			want, ok := pf.VFAddress(i)
			if !ok || vf.Address != want || vf.Netdev == nil || vf.RDMA == nil || vf.RDMA.State != "ACTIVE" || len(vf.RDMA.CharDevices) != 3 || vf.Driver != "mlx5_core" || vf.IOMMUGroup == "" {
				t.Errorf("VF %d of %s: %+v", i, pf.Address, vf)
			}
		}
	}
}

func TestFigures(t *testing.T) {
	s := &Suite{}
	for name, samples := range map[string]figures.Samples{
		SamplesAttach: {10, 51, 12}, podStartPlain: {400}, podStartVF: {519}, discover: {20},
	} {
		s.report.Keep(name, figures.Ours, samples)
	}
	s.compute()
	var out strings.Builder
	if err := s.report.Print(&out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("attach_p50 12 ms\nattach_p99 51 ms\npod_start_plain 400 ms\npod_start_vf 519 ms\ndiscover_8x16 20 ms\n", out.String()); diff != "" {
		t.Error(diff)
	}
	for _, row := range s.report.Rows {
		for _, demand := range row.Demands {
			if !demand.Met {
				t.Errorf("%s: %s is not met", row.Name, demand.Text)
			}
		}
	}
}

func TestTheHookOfAClaim(t *testing.T) {
	dir := t.TempDir()
	claim := draclient.Claim{Namespace: "ns", Name: "c", UID: "0af1"}
	if _, err := hookOf(dir, claim); err == nil || !strings.Contains(err.Error(), "ns/c:0af1") {
		t.Errorf("without a spec: %v", err)
	}
	spec := `{"devices":[{"name":"a","containerEdits":{"hooks":[{"hookName":"createContainer","path":"/x/other"}]}}],
		"containerEdits":{"hooks":[{"hookName":"createRuntime","path":"/x/attach-hook","args":["attach-hook","--claim=0af1"]}]}}`
	if err := os.WriteFile(filepath.Join(dir, "driver-vf_0af1.json"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	hook, err := hookOf(dir, claim)
	if err != nil || hook.Path != "/x/attach-hook" || len(hook.Args) != 2 {
		t.Errorf("%+v, %v", hook, err)
	}
}

// A hook gets the state of a container that is in a network namespace of its
// own, and its last words are in the error.
func TestASandbox(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
	box, err := newSandbox(t.Context(), pod, t.TempDir(), "sandbox-1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := box.close(); err != nil {
			t.Error(err)
		}
	}()
	names, err := box.interfaces()
	if err != nil || len(names) > 0 {
		t.Errorf("interfaces %v, %v", names, err)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if other, err := os.Readlink(box.path()); err != nil || other == own {
		t.Errorf("namespace %s, own %s, %v", other, own, err)
	}
	for _, test := range []struct{ script, want string }{
		{`grep -q '"io.kubernetes.cri.sandbox-uid":"u"'`, ""},
		{`echo no VF is left >&2; exit 1`, "no VF is left"},
	} {
		took, err := box.run(t.Context(), &cdispec.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", test.script}})
		if test.want == "" && (err != nil || took <= 0) || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, %v", test.script, took, err)
		}
	}
}
