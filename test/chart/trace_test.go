package chart

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// trace is everything that an installation could leave behind.
type trace struct {
	// Objects are those of the API, as resource/name in a namespace.
	Objects []string
	// Node is what the node has: files, folders and interfaces.
	Node []string
}

// folders are where something could be on the node.
func folders() []string {
	return []string{
		"/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins_registry", "/var/lib/kubelet/device-plugins", "/var/lib/cni",
		"/run/", "/var/run/", "/etc/containerd", "/etc/cni", "/opt", "/usr/local",
	}
}

// ofAllDevicePlugins are, less /var, what kubelet writes when the first device plugin
// comes, whosever it is, and the folders that device plugins and Multus share:
// others may have them mounted.
func ofAllDevicePlugins() []string {
	return []string{
		"/lib/kubelet/device-plugins/kubelet_internal_checkpoint",
		"/run/k8s.cni.cncf.io", "/run/k8s.cni.cncf.io/devinfo", "/run/k8s.cni.cncf.io/devinfo/dp",
	}
}

// trace looks at everything.
func (s *site) trace() (trace, error) {
	var t trace
	kinds, err := cluster.Kubectl(s.ctx, "api-resources", "--verbs=list", "-o", "name")
	if err != nil {
		return t, err
	}
	var listed []string
	for _, kind := range strings.Fields(kinds) {
		if kind == "events" || strings.HasPrefix(kind, "events.") || strings.HasPrefix(kind, "componentstatuses") {
			continue // they go by themselves, or are none
		}
		listed = append(listed, kind)
	}
	slices.Sort(listed)
	out, err := cluster.Kubectl(s.ctx, "get", strings.Join(listed, ","), "-A", "--ignore-not-found", "--no-headers",
		"-o", "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,FINALIZERS:.metadata.finalizers")
	if err != nil {
		return t, err
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Lease") && strings.Contains(line, "kube-node-lease") {
			continue // kubelet makes its own when it gets to it
		}
		if strings.HasPrefix(line, "ControllerRevision ") && strings.Fields(line)[1] == "cni" {
			continue // what a DaemonSet of a network plugin was
		}
		t.Objects = append(t.Objects, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(t.Objects)
	files, err := cluster.OnNode(s.ctx, "sh", "-c", "find "+strings.Join(folders(), " ")+" 2>/dev/null; true")
	if err != nil {
		return t, err
	}
	// What belongs to running pods, whoever made them.
	ofPods := []string{"/run/containerd/", "/run/netns/", "/run/cni-networks/", "/run/mount/"}
	for _, file := range strings.Fields(files) {
		if slices.Contains(ofAllDevicePlugins(), strings.TrimPrefix(file, "/var")) {
			continue
		}
		if !slices.ContainsFunc(ofPods, func(folder string) bool { return strings.HasPrefix(strings.TrimPrefix(file, "/var"), folder) }) {
			t.Node = append(t.Node, file)
		}
	}
	links, err := cluster.OnNode(s.ctx, "ip", "-oneline", "link", "show")
	if err != nil {
		return t, err
	}
	for line := range strings.Lines(links) {
		if columns := strings.Fields(line); len(columns) > 1 && !strings.HasPrefix(columns[1], "veth") {
			t.Node = append(t.Node, "interface "+strings.TrimSuffix(columns[1], ":"))
		}
	}
	slices.Sort(t.Node)
	return t, nil
}

// before is the trace of a cluster without the driver, on which pods have run and
// to which the namespace belongs.
func (s *site) before(namespace string) trace {
	s.t.Helper()
	if _, err := cluster.OnNode(s.ctx, "mkdir", "-p", "/var/run/cdi"); errors.Is(err, harness.ErrNoNode) {
		s.t.Skip(err)
	} else if err != nil {
		s.t.Fatal(err)
	}
	out, err := cluster.Kubectl(s.ctx, "create", "namespace", namespace)
	if err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
		s.t.Fatal(err, out)
	}
	s.must(cluster.WaitNamespace(s.patient(), namespace))
	s.kubectl("run", "-n", "default", "first", "--image=busybox:1.36", "--restart=Never", "--image-pull-policy=IfNotPresent", "--command", "--", "ls")
	if _, err := cluster.WaitPod(s.patient(), "default", "first", harness.Succeeded()); err != nil {
		s.t.Fatal(err)
	}
	s.kubectl("delete", "pod", "-n", "default", "first", "--wait")
	before, err := s.trace()
	s.must(err)
	if !slices.Contains(before.Objects, "Node <none> dgx-0 <none>") || !slices.Contains(before.Node, "/var/lib/kubelet/plugins_registry") {
		s.t.Fatalf("this test looks in the wrong places: %v", before)
	}
	return before
}

// wantNothingLeft waits until everything is as it was.
func (s *site) wantNothingLeft(before trace) {
	s.t.Helper()
	s.until("as before", func() error {
		now, err := s.trace()
		if err != nil {
			return err
		}
		if diff := cmp.Diff(before, now); diff != "" {
			return fmt.Errorf("(-before +after):\n%s", diff)
		}
		return nil
	})
}

func TestTracesDiffer(t *testing.T) {
	s := newSite(t)
	before := s.before("default")
	s.kubectl("create", "configmap", "-n", "default", "trace")
	if _, err := cluster.OnNode(s.ctx, "touch", "/var/run/cdi/trace"); err != nil {
		t.Error(err)
	}
	now, err := s.trace()
	s.must(err)
	if slices.Equal(before.Objects, now.Objects) || slices.Equal(before.Node, now.Node) {
		t.Error("a new object and a new file make no difference")
	}
	s.kubectl("delete", "configmap", "-n", "default", "trace")
	if _, err := cluster.OnNode(s.ctx, "rm", "/var/run/cdi/trace"); err != nil {
		t.Error(err)
	}
	s.wantNothingLeft(before)
}
