package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/supervisor"
)

// PauseImage is the image that holds a pod's namespaces.
const PauseImage = "localhost/pause:1"

// Paths that the node's programs see; behind those below /var, /etc and /opt
// are folders of the cluster's own (see NodeFolders).
const (
	containerdConfig = "/etc/containerd/config.toml"
	containerdSocket = "/run/containerd/containerd.sock"
)

// NodeFolders maps each standard path of a node to its folder in the state
// folder, so that manifests work unchanged and the machine's own node, if it is
// one, is not touched.
func NodeFolders(s State) map[string]string {
	return map[string]string{
		"/etc/cdi":            s.Path("node", "etc-cdi"),
		"/etc/cni":            s.Path("node", "etc-cni"),
		"/etc/containerd":     s.Path("node", "etc-containerd"),
		"/opt/cni":            s.Path("node", "opt-cni"),
		"/var/lib/cni":        s.Path("node", "cni"),
		"/var/lib/containerd": s.Path("node", "containerd"),
		"/var/lib/kubelet":    s.Path("node", "kubelet"),
		"/var/log/containers": s.Path("node", "container-logs"),
		"/var/log/pods":       s.Path("node", "pod-logs"),
	}
}

func nodeCommands(c *Config, s State) []supervisor.Command {
	return []supervisor.Command{
		command(c, Containerd, "--config="+containerdConfig),
		command(c, Kubelet, kubeletArgs(c, s, c.Addresses().Node)...),
	}
}

// kubeletArgs are the kubelet's arguments on the config's node.
func kubeletArgs(c *Config, s State, address netip.Addr) []string {
	args := []string{
		"--config=" + s.Path("etc", "kubelet.yaml"),
		"--kubeconfig=" + s.Path("etc", Kubelet+".kubeconfig"),
		"--hostname-override=" + c.NodeName, "--node-ip=" + address.String(), "--v=2",
	}
	if c.NodeLabels != "" {
		args = append(args, "--node-labels="+c.NodeLabels)
	}
	return args
}

// WriteNode writes what the node's programs read at start, except the
// containerd configuration, which depends on what the kernel can do in the
// node's namespaces.
func WriteNode(c *Config, s State) error {
	folders := NodeFolders(s)
	for _, dir := range folders {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a folder of the node: %w", err)
		}
	}
	kubelet, err := kubeletConfig(c, s, "/"+s.CgroupName())
	if err != nil {
		return err
	}
	a := c.Addresses()
	network, err := networkConfig(a.Pods, a.PodGateway, false)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		s.Path("etc", "kubelet.yaml"):                                      kubelet,
		s.Path("etc", "resolv.conf"):                                       []byte("# The test cluster has no DNS.\n"),
		filepath.Join(folders["/etc/cni"], "net.d", "10-cluster.conflist"): network,
	}
	for path, content := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make a folder of the node: %w", err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("write the node's configuration: %w", err)
		}
	}
	return linkPlugins(c, filepath.Join(folders["/opt/cni"], "bin"))
}

// linkPlugins makes the CNI plugins visible in their standard folder, in which
// others may put plugins of their own.
func linkPlugins(c *Config, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the CNI plugins: %w", err)
	}
	for _, plugin := range []string{"bridge", "ptp", "host-device", "loopback", "host-local", "static", "portmap", "tuning"} {
		if err := os.Symlink(c.Programs[plugin], filepath.Join(dir, plugin)); err != nil && !os.IsExist(err) {
			return fmt.Errorf("link the CNI plugin %s: %w", plugin, err)
		}
	}
	return nil
}

// kubeletConfig is the kubelet's configuration; it finds further files in the
// state folder. Pods are below cgroup.
func kubeletConfig(c *Config, s State, cgroup string) ([]byte, error) {
	type object = map[string]any
	gates, err := c.gates()
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": object{
			"anonymous": object{"enabled": false},
			"webhook":   object{"enabled": true},
			"x509":      object{"clientCAFile": s.Path("pki", "ca.crt")},
		},
		"authorization":            object{"mode": "Webhook"},
		"tlsCertFile":              s.Path("pki", "kubelet-server.crt"),
		"tlsPrivateKeyFile":        s.Path("pki", "kubelet-server.key"),
		"containerRuntimeEndpoint": "unix://" + containerdSocket,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               cgroup,
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"featureGates":             gates,
		"resolvConf":               s.Path("etc", "resolv.conf"),
		"volumePluginDir":          "/var/lib/kubelet/volumeplugins",
		// There is no DNS: with this address a look-up fails at once, and kubelet
		// does not warn about each pod.
		"clusterDNS":                []string{"127.0.0.1"},
		"makeIPTablesUtilChains":    false,
		"oomScoreAdj":               0,
		"serializeImagePulls":       false,
		"syncFrequency":             "10s",
		"nodeStatusUpdateFrequency": "5s",
		// The machine's disk belongs to others too: how full it is must not
		// decide whether a test passes.
		"evictionHard": object{
			"memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
			"imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
	})
}

// networkConfig is the pods' network: a bridge on the node, whose pods the
// control plane reaches by a route. Where it has none, pods hide behind their
// node's address.
func networkConfig(pods netip.Prefix, gateway netip.Addr, hide bool) ([]byte, error) {
	type object = map[string]any
	bridge := object{
		"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "ipMasq": hide,
		"ipam": object{
			"type": "host-local",
			// On tmpfs: a reboot frees every address.
			"dataDir": "/run/cni-networks",
			"ranges":  [][]object{{{"subnet": pods.String(), "gateway": gateway.String()}}},
		},
	}
	if hide {
		bridge["ipMasqBackend"] = "nftables"
	}
	content, err := json.MarshalIndent(object{"cniVersion": "1.0.0", "name": "cluster", "plugins": []object{bridge}}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the CNI configuration: %w", err)
	}
	return content, nil
}

// Runtime is what the node's kernel lets containerd do.
type Runtime struct {
	// Snapshotter is overlayfs or native.
	Snapshotter string `json:"snapshotter"`
	// RestrictOOMScore is set where the capability to lower a process'
	// oom_score_adj (CAP_SYS_RESOURCE) is missing.
	RestrictOOMScore bool `json:"restrictOOMScore"`
}

// LoadRuntime reads what WriteContainerd kept.
func LoadRuntime(s State) (Runtime, error) {
	var r Runtime
	content, err := os.ReadFile(s.Path("etc", "runtime.json"))
	if err != nil {
		return r, fmt.Errorf("read what the node's kernel can do: %w", err)
	}
	if err := json.Unmarshal(content, &r); err != nil {
		return r, fmt.Errorf("decode what the node's kernel can do: %w", err)
	}
	return r, nil
}

// WriteContainerd writes containerd's configuration, seen from inside the node.
// A configuration that is there already is kept: it may have been edited, as on
// a real node.
func WriteContainerd(c *Config, s State, r Runtime) error {
	content, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode what the node's kernel can do: %w", err)
	}
	if err := os.WriteFile(s.Path("etc", "runtime.json"), content, 0o644); err != nil {
		return fmt.Errorf("keep what the node's kernel can do: %w", err)
	}
	if _, err := os.Stat(containerdConfig); err == nil {
		return nil
	}
	if err := os.MkdirAll("/etc/containerd/certs.d", 0o755); err != nil {
		return fmt.Errorf("make the folder of the registries' settings: %w", err)
	}
	if err := os.WriteFile(containerdConfig, []byte(containerdText(c, r)), 0o644); err != nil {
		return fmt.Errorf("write the configuration of containerd: %w", err)
	}
	return nil
}

func containerdText(c *Config, r Runtime) string {
	replace := strings.NewReplacer(
		"SOCKET", containerdSocket, "SNAPSHOTTER", r.Snapshotter, "PAUSE", PauseImage,
		"RUNC", c.Programs["runc"], "RESTRICT", fmt.Sprint(r.RestrictOOMScore))
	return replace.Replace(`version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
  address = "SOCKET"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "SNAPSHOTTER"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "PAUSE"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
  restrict_oom_score_adj = RESTRICT
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "RUNC"
        SystemdCgroup = false
    # Stands where NVIDIA's runtime is on machines with GPUs: for pods with such a
    # RuntimeClass. It does what runc does.
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia.options]
        BinaryName = "RUNC"
        SystemdCgroup = false
`)
}
