package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// vfSettings is a configuration that makes the plugin do something at most
// steps.
const vfSettings = `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"VfConfig","mac":"02:00:00:00:00:42","vlan":7,"mtu":1400,
	"addresses":["192.0.2.5/24"],"routes":[{"destination":"198.51.100.0/24","gateway":"192.0.2.1"}]}`

// vfNode is a node whose machine has NICs, in a network namespace of the test's
// own.
type vfNode struct {
	*node
	host *netns
	// names are the VFs, and interfaces what the host's namespace has when no
	// VF is in use.
	names      []string
	interfaces []string
	sandboxes  int
	// pairs serves the GPUs, too.
	pairs bool
}

func newVFNode(t *testing.T) *vfNode {
	t.Helper()
	n := &vfNode{node: newNode(t), host: newNetns(t)}
	p := n.startVFs()
	selector := fields.Set{resourceapi.ResourceSliceSelectorNodeName: n.name, resourceapi.ResourceSliceSelectorDriver: driverName}
	eventually(t, "VFs published", func() error {
		slices, err := bed.client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{FieldSelector: selector.String()})
		if err != nil {
			return err
		}
		n.names = nil
		for _, s := range slices.Items {
			for _, d := range s.Spec.Devices {
				if strings.HasPrefix(d.Name, "vf-") { // not of a node that had the name before
					n.names = append(n.names, d.Name)
				}
			}
		}
		if len(n.names) < 2 {
			return fmt.Errorf("%d VFs", len(n.names))
		}
		return nil
	})
	slices.Sort(n.names)
	p.stop()
	n.interfaces = n.host.interfaces(t)
	return n
}

// startVFs starts an instance that serves the VFs, and registers it.
func (n *vfNode) startVFs(options ...option) *plugin {
	n.t.Helper()
	return n.start(append(options, n.serveVFs())...)
}

func (n *vfNode) serveVFs() option {
	return func(p *plugin) {
		p.cmd.Args = append(p.cmd.Args, fmt.Sprintf("--enable-gpu=%t", n.pairs), "--enable-sriov", "--host-netns="+n.host.path, "--cni-bin-dir="+n.cniBin())
	}
}

// newVFClaim makes a claim that is allocated a VF, with a VfConfig.
func (n *vfNode) newVFClaim(config string) claim {
	n.t.Helper()
	a := n.allocation(n.names[0])
	a.Configs = []draclient.Config{{Driver: driverName, JSON: config}}
	return n.allocate(a)
}

// mustBeBack fails the test if the host lacks a VF's interface, or a claim has
// left anything, also with a CNI plugin.
func (n *vfNode) mustBeBack() {
	n.t.Helper()
	n.mustBeClean()
	n.mustHaveTakenBack()
	if diff := cmp.Diff(n.interfaces, n.host.interfaces(n.t)); diff != "" {
		n.t.Fatalf("interfaces of the host (-before +after):\n%s", diff)
	}
}

// netns is a network namespace with one process in it.
type netns struct {
	path string
	dev  string
	end  func() error
}

func newNetns(t *testing.T) *netns {
	t.Helper()
	process := exec.Command("cat") // ends with its input
	process.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	input, err := process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	ns := &netns{
		path: fmt.Sprintf("/proc/%d/ns/net", process.Process.Pid),
		dev:  fmt.Sprintf("/proc/%d/net/dev", process.Process.Pid),
	}
	ns.end = func() error {
		if ended {
			return nil
		}
		ended = true
		return errors.Join(input.Close(), process.Wait())
	}
	t.Cleanup(func() {
		if err := ns.end(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// interfaces returns the names of the namespace's interfaces, sorted.
func (ns *netns) interfaces(t *testing.T) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(mustRead(t, ns.dev)) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), ":")
		// The simulation makes switches between its NICs when it needs them.
		if ok && !strings.HasPrefix(name, "simfabric") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// sandbox is a pod's network namespace, and a container that is about to start
// in it.
type sandbox struct {
	*netns
	node  *vfNode
	claim claim
	state []byte
}

// newSandbox makes a pod of which only the sandbox exists.
func (n *vfNode) newSandbox(c claim) *sandbox {
	n.t.Helper()
	n.sandboxes++
	s := &sandbox{netns: newNetns(n.t), node: n, claim: c}
	dir := filepath.Join(n.dir, "sandboxes", fmt.Sprint(n.sandboxes))
	bound := filepath.Join(dir, "netns")
	config, err := json.Marshal(map[string]any{
		"annotations": map[string]string{
			"io.kubernetes.cri.sandbox-id": fmt.Sprintf("%s-%d", n.name, n.sandboxes), "io.kubernetes.cri.sandbox-namespace": bed.namespace,
			"io.kubernetes.cri.sandbox-name": "pod", "io.kubernetes.cri.sandbox-uid": fmt.Sprintf("pod-%s-%d", n.name, n.sandboxes),
		},
		"linux": map[string]any{"namespaces": []map[string]string{{"type": "network", "path": bound}}},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(filepath.Join(dir, "config.json"), string(config))
	if err := os.Symlink(s.path, bound); err != nil {
		n.t.Fatal(err)
	}
	pid := strings.Split(s.path, "/")[2]
	s.state = fmt.Appendf(nil, `{"pid":%s,"bundle":%q}`, pid, dir)
	return s
}

// hook runs the attach hook as a container runtime does, and returns what it
// said as an error if it failed.
func (s *sandbox) hook(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.node.dataDir(), "bin", "attach-hook"),
		"--data-dir="+s.node.dataDir(), "--claim="+string(s.claim.UID), "--wait="+patience.String())
	cmd.Stdin = bytes.NewReader(s.state)
	cmd.Env = []string{}
	said := &bytes.Buffer{}
	cmd.Stderr = said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
}

// mustAttach runs the hook and looks for the interface.
func (s *sandbox) mustAttach() {
	s.node.t.Helper()
	if err := s.hook(s.node.t.Context()); err != nil {
		s.node.t.Fatal(err)
	}
	s.mustHave("lo", "net1")
}

func (s *sandbox) mustHave(interfaces ...string) {
	s.node.t.Helper()
	if diff := cmp.Diff(interfaces, s.interfaces(s.node.t)); diff != "" {
		s.node.t.Fatalf("interfaces of the pod (-want +got):\n%s", diff)
	}
}
