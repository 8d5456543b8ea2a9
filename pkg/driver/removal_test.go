package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
)

// A driver that is removed takes its devices out of the API, serves the claim
// that is there, and is done when that has ended.
func TestADriverThatIsRemovedServesItsClaimsToTheirEnd(t *testing.T) {
	n := newNode(t, "gpu-0")
	dir, err := os.MkdirTemp("", "dra") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	n.dir = dir
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, d := range []string{"data", "registry"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: testNode, UID: "node"}}, createOptions); err != nil {
		t.Fatal(err)
	}
	claim := newClaim("a", []string{"gpu-0"})
	n.createClaim(claim)
	request := []*drapb.Claim{{Namespace: claim.Namespace, Name: claim.Name, Uid: string(claim.UID)}}

	first, stop := n.running(func(*Options) {})
	eventually(t, "published", func() error { return n.wantSlices(1) })
	prepared, err := first.NodePrepareResources(t.Context(), &drapb.NodePrepareResourcesRequest{Claims: request})
	if err != nil || prepared.Claims["a"].Error != "" {
		t.Fatalf("prepare: %v, %v", prepared, err)
	}
	stop()

	var d *Driver
	plugin, stop := n.running(func(o *Options) { o.Removing, o.RemovalSettle = true, 100*time.Millisecond }, &d)
	emptied := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { emptied <- d.Emptied(ctx) }()
	eventually(t, "unpublished", func() error { return n.wantSlices(0) })
	eventually(t, "told of the claim", func() error {
		if err := d.InTheWay(); err == nil || !strings.Contains(err.Error(), "ns/claim-a") {
			return errors.Join(errors.New("the claim is not named"), err)
		}
		return nil
	})
	select {
	case err := <-emptied:
		t.Fatalf("done with a claim prepared: %v", err)
	default:
	}
	unprepared, err := plugin.NodeUnprepareResources(t.Context(), &drapb.NodeUnprepareResourcesRequest{Claims: request})
	if err != nil || unprepared.Claims["a"].Error != "" {
		t.Fatalf("unprepare: %v, %v", unprepared, err)
	}
	if err := <-emptied; err != nil {
		t.Fatal(err)
	}
	stop()
	n.wantRemoved()
}

// wantRemoved removes what the driver has written, twice, and fails the test if
// anything of it is left, or anything else is gone.
func (n *node) wantRemoved() {
	n.t.Helper()
	others := []string{"cdi/other_gpu_a.json", "cdi/eks-hybrid-dra.json", "registry/other-reg.sock", "data-of-another/file"}
	for _, file := range others {
		path := filepath.Join(n.dir, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
			n.t.Fatal(err)
		}
	}
	leaveSocket(n.t, filepath.Join(n.dir, "registry", testDriver+"-killed-reg.sock"))
	if err := os.WriteFile(filepath.Join(n.cdiDir(), testDriver+"_gpu_gone.json"), nil, 0o600); err != nil {
		n.t.Fatal(err)
	}
	b := Belongings{DriverName: testDriver, DataDir: filepath.Join(n.dir, "data"), RegistrarDir: filepath.Join(n.dir, "registry"), CDIDir: n.cdiDir()}
	for range 2 {
		if err := errors.Join(b.AwaitAlone(n.t.Context()), b.Remove()); err != nil {
			n.t.Fatal(err)
		}
	}
	if left, err := b.Any(); left || err != nil {
		n.t.Errorf("belongings are left: %v, %v", left, err)
	}
	got := map[string]bool{}
	for _, file := range n.files() {
		got[file] = true
	}
	for _, file := range others {
		if !got[file] {
			n.t.Errorf("%s is gone, which is not the driver's", file)
		}
		delete(got, file)
	}
	if len(got) > 0 {
		n.t.Errorf("files are left: %v", got)
	}
}

// An instance that still runs would write again what is removed.
func TestRemovalWaitsForOtherInstances(t *testing.T) {
	n := newNode(t, "gpu-0")
	dir, err := os.MkdirTemp("", "dra")
	if err != nil {
		t.Fatal(err)
	}
	n.dir = dir
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, d := range []string{"data", "registry"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, stop := n.running(func(*Options) {})
	b := Belongings{DriverName: testDriver, DataDir: filepath.Join(dir, "data"), RegistrarDir: filepath.Join(dir, "registry"), CDIDir: n.cdiDir()}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("time is up"))
	defer cancel()
	if err := b.AwaitAlone(ctx); err == nil || !strings.Contains(err.Error(), "dra.sock") {
		t.Errorf("want to be told of the other instance, got %v", err)
	}
	stop()
	if err := b.AwaitAlone(t.Context()); err != nil {
		t.Error(err)
	}
}

// running runs an instance of the plugin until stop is called, and returns what
// kubelet calls.
func (n *node) running(set func(*Options), got ...**Driver) (plugin drapb.DRAPluginClient, stop func()) {
	n.t.Helper()
	d := n.startWith(set)
	for _, g := range got {
		*g = d
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	eventually(n.t, "healthy", func() error { return d.Healthy(n.t.Context()) })
	conn, err := dial(filepath.Join(n.dir, "data", d.pluginSocket()))
	if err != nil {
		n.t.Fatal(err)
	}
	return drapb.NewDRAPluginClient(conn), func() {
		n.t.Helper()
		cancel()
		if err := errors.Join(<-done, conn.Close()); err != nil {
			n.t.Errorf("stopping: %v", err)
		}
	}
}

func (n *node) wantSlices(count int) error {
	list, err := n.client.ResourceV1().ResourceSlices().List(n.t.Context(), metav1.ListOptions{})
	if err == nil && len(list.Items) != count {
		err = errors.New("there are other slices than wanted")
	}
	return err
}
