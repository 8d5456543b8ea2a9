package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// A claim's way through the sockets, as kubelet goes it.
func TestServesKubelet(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	n := newNode(t, "gpu-0", "gpu-1")
	// Socket paths have at most 107 characters, which a test's folder can exceed.
	dir, err := os.MkdirTemp("", "dra")
	if err != nil {
		t.Fatal(err)
	}
	n.dir = dir
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}()
	for _, d := range []string{"data", "registry"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	stale := filepath.Join(dir, "registry", testDriver+"-old-reg.sock")
	leaveSocket(t, stale)
	if _, err := n.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: testNode, UID: "node"}}, createOptions); err != nil {
		t.Fatal(err)
	}
	claim := newClaim("a", []string{"gpu-1"})
	n.createClaim(claim)
	n.client.Resources = []*metav1.APIResourceList{{GroupVersion: resourceapi.SchemeGroupVersion.String()}}

	d := n.start()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	eventually(t, "healthy", func() error { return d.Healthy(t.Context()) })
	if err := d.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "kubelet has not registered") {
		t.Errorf("want to be told that kubelet is missing, got %v", err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("the socket of a killed instance is still there: %v", err)
	}

	register(t, filepath.Join(dir, "registry", testDriver+"-reg.sock"))
	eventually(t, "ready", func() error { return d.Ready(t.Context()) })
	slices, err := n.client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(slices.Items) != 1 || slices.Items[0].Spec.Pool.Name != testPool || len(slices.Items[0].Spec.Devices) != 2 {
		t.Errorf("unexpected slices: %v, %v", slices, err)
	}

	if err := d.removeStaleSockets(t.Context()); err == nil || !strings.Contains(err.Error(), "--pod-uid") {
		t.Errorf("a second plugin of the same pod: want an error that names the flag, got %v", err)
	}

	conn, err := dial(filepath.Join(dir, "data", "dra.sock"))
	if err != nil {
		t.Fatal(err)
	}
	plugin := drapb.NewDRAPluginClient(conn)
	checkHonestProbes(t, n, d)
	request := []*drapb.Claim{{Namespace: claim.Namespace, Name: claim.Name, Uid: string(claim.UID)}}
	prepared, err := plugin.NodePrepareResources(t.Context(), &drapb.NodePrepareResourcesRequest{Claims: request})
	if err != nil || prepared.Claims["a"].Error != "" || len(prepared.Claims["a"].Devices) != 1 {
		t.Fatalf("prepare: %v, %v", prepared, err)
	}
	ids := prepared.Claims["a"].Devices[0].CdiDeviceIds
	if want := []string{"eks-hybrid-dra/gpu=a-gpu-1", "eks-hybrid-dra/metadata=a_r0"}; !cmp.Equal(ids, want) {
		t.Errorf("CDI devices %v, want %v", ids, want)
	}
	unprepared, err := plugin.NodeUnprepareResources(t.Context(), &drapb.NodeUnprepareResourcesRequest{Claims: request})
	if err != nil || unprepared.Claims["a"].Error != "" {
		t.Errorf("unprepare: %v, %v", unprepared, err)
	}

	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopping: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "registry"))
	if err != nil || len(entries) > 0 {
		t.Errorf("sockets left: %v, %v", entries, err)
	}
}

// checkHonestProbes takes away what the plugin needs and expects its probes to
// say so, and to say so no more when it is back.
func checkHonestProbes(t *testing.T, n *node, d *Driver) {
	t.Helper()
	slices := n.client.ResourceV1().ResourceSlices()
	list, err := slices.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	// As kept by an earlier plugin: as many devices, but not these.
	stale := list.Items[0].DeepCopy()
	stale.Spec.Devices[0].Name = "gpu-9"
	if _, err := slices.Update(t.Context(), stale, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	d.status.complete = time.Now().Add(-completeFor)
	if err := d.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "1 of 2 devices are not in the node's ResourceSlices: gpu-0") {
		t.Errorf("ready without gpu-0 in the API: %v", err)
	}
	if _, err := slices.Update(t.Context(), list.Items[0].DeepCopy(), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready again", func() error { return d.Ready(t.Context()) })

	socket := filepath.Join(n.dir, "data", "dra.sock")
	if err := os.Rename(socket, socket+".away"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := d.Healthy(ctx); err == nil {
		t.Error("healthy without its socket")
	}
	if err := os.Rename(socket+".away", socket); err != nil {
		t.Fatal(err)
	}
	if err := d.Healthy(t.Context()); err != nil {
		t.Errorf("not healthy again: %v", err)
	}
}

// A container keeps the folders that the host has deleted.
func TestDeletedFolderIsNotHealthy(t *testing.T) {
	dir := t.TempDir()
	if err := checkMounted(dir); err != nil {
		t.Error(err)
	}
	file, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := checkMounted(fmt.Sprintf("/proc/self/fd/%d", file.Fd())); err == nil || !strings.Contains(err.Error(), "restart the plugin") {
		t.Errorf("want to be told to restart, got %v", err)
	}
	if err := checkMounted(dir); err != nil {
		t.Errorf("a folder that is made when it is needed: %v", err)
	}
}

// A family that can only go on in a new process gets one: the container is
// restarted.
func TestEndsWhenAFamilyNeedsANewProcess(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	if err := os.MkdirAll(filepath.Join(n.dir, "registry"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.gpus.err = fmt.Errorf("driver replaced: %w", device.ErrRestart)
	if err := d.Run(t.Context()); !errors.Is(err, device.ErrRestart) {
		t.Errorf("want to end with the family's error, got %v", err)
	}
}

// register does what kubelet does when it finds the plugin's socket.
func register(t *testing.T, socket string) {
	t.Helper()
	conn, err := dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	client := registerapi.NewRegistrationClient(conn)
	if _, err := client.GetInfo(t.Context(), &registerapi.InfoRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.NotifyRegistrationStatus(t.Context(), &registerapi.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
}

// leaveSocket leaves a socket file on which nobody listens, as a killed
// process does.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	unixListener, ok := listener.(*net.UnixListener)
	if !ok {
		t.Fatal(unix.EINVAL)
	}
	unixListener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("never %s: %v", what, last)
	}
}
