package config

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func example() *Config {
	return &Config{
		Name: "demo", KubernetesVersion: "v1.37.1", NodeName: "dgx-0",
		NodeLabels:   "eks.amazonaws.com/compute-type=hybrid",
		FeatureGates: "DRAListTypeAttributes=true,Other=false",
		Block:        netip.MustParsePrefix("10.214.2.0/23"),
		Programs:     map[string]string{"kubelet": "/cache/kubelet", "runc": "/cache/runc", "kube-apiserver": "/cache/kube-apiserver"},
	}
}

func TestAddressesAreDistinctAndInside(t *testing.T) {
	c := example()
	a := c.Addresses()
	want := Addresses{
		Pods: netip.MustParsePrefix("10.214.2.0/24"), PodGateway: netip.MustParseAddr("10.214.2.1"),
		Host: netip.MustParseAddr("10.214.3.1"), API: netip.MustParseAddr("10.214.3.2"),
		ControlPlane: netip.MustParseAddr("10.214.3.5"), Node: netip.MustParseAddr("10.214.3.6"),
	}
	if diff := cmp.Diff(want, a, cmp.Comparer(func(x, y netip.Addr) bool { return x == y }), cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"as it is", func(*Config) {}, ""},
		{"no gates", func(c *Config) { c.FeatureGates = "" }, ""},
		{"name", func(c *Config) { c.Name = "../x" }, "--name"},
		{"node name", func(c *Config) { c.NodeName = "DGX 0" }, "--node-name"},
		{"gate without value", func(c *Config) { c.FeatureGates = "A" }, "--feature-gates"},
		{"label without value", func(c *Config) { c.NodeLabels = "a" }, "--node-labels"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := example()
			test.change(c)
			err := c.Validate()
			if (err == nil) != (test.want == "") || (err != nil && !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want an error about %q", err, test.want)
			}
		})
	}
}

func TestNewState(t *testing.T) {
	for _, test := range []struct{ dir, want string }{
		{"/var/lib/eks-hybrid-dra-cluster/default", ""},
		{"/" + strings.Repeat("x", 100), "Unix sockets"},
		{"/run/cluster", "choose a folder on a disk"},
		{"/running", ""},
	} {
		_, err := NewState(test.dir)
		if (err == nil) != (test.want == "") || (err != nil && !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want an error about %q", test.dir, err, test.want)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	s := State{Dir: t.TempDir()}
	if _, err := s.Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("loading nothing: got %v", err)
	}
	c := example()
	if err := s.Save(c); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if !got.SameRequest(c) || got.Block != c.Block {
		t.Errorf("got %+v, want %+v", got, c)
	}
	c.FeatureGates = ""
	if got.SameRequest(c) {
		t.Error("other feature gates are the same request")
	}
}

func TestKubeletConfig(t *testing.T) {
	s := State{Dir: "/s"}
	content, err := kubeletConfig(example(), s, "/"+s.CgroupName())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		CgroupRoot     string
		FailCgroupV1   *bool
		FeatureGates   map[string]bool
		Authorization  struct{ Mode string }
		Authentication struct{ Anonymous struct{ Enabled bool } }
	}
	if err := yaml.Unmarshal(content, &got); err != nil {
		t.Fatal(err)
	}
	if got.CgroupRoot != "/"+s.CgroupName() {
		t.Errorf("cgroupRoot %q, want the cluster's own", got.CgroupRoot)
	}
	if got.FailCgroupV1 == nil || *got.FailCgroupV1 {
		t.Error("kubelet would refuse cgroup v1")
	}
	if got.Authorization.Mode != "Webhook" || got.Authentication.Anonymous.Enabled {
		t.Error("kubelet's own API is open")
	}
	if diff := cmp.Diff(map[string]bool{"DRAListTypeAttributes": true, "Other": false}, got.FeatureGates); diff != "" {
		t.Errorf("feature gates (-want +got):\n%s", diff)
	}
}

func TestCommands(t *testing.T) {
	c, s := example(), State{Dir: "/s"}
	for role, want := range map[Role]map[string][]string{
		ControlPlane: {
			Etcd:              {"--unsafe-no-fsync"},
			APIServer:         {"--authorization-mode=Node,RBAC", "--advertise-address=10.214.3.5", "--feature-gates=" + c.FeatureGates},
			ControllerManager: {"--use-service-account-credentials=true", "--feature-gates=" + c.FeatureGates},
			Scheduler:         {"--feature-gates=" + c.FeatureGates},
		},
		Node: {
			Containerd: {"--config=/etc/containerd/config.toml"},
			Kubelet:    {"--hostname-override=dgx-0", "--node-ip=10.214.3.6", "--node-labels=" + c.NodeLabels},
		},
	} {
		got := Commands(c, s, role)
		if len(got) != len(want) {
			t.Errorf("%s has %d commands, want %d", role, len(got), len(want))
		}
		for _, command := range got {
			if of, ok := RoleOf(command.Name); !ok || of != role {
				t.Errorf("%s is of the role %q, want %q", command.Name, of, role)
			}
			for _, arg := range want[command.Name] {
				if !slices.Contains(command.Args, arg) {
					t.Errorf("%s lacks %s in %q", command.Name, arg, command.Args)
				}
			}
			if command.Name == Etcd && slices.ContainsFunc(command.Args, func(a string) bool { return strings.HasPrefix(a, "--feature-gates") }) {
				t.Error("etcd gets Kubernetes' feature gates")
			}
		}
	}
}

func TestTheAPIServerAuditsWhereThereIsAPolicy(t *testing.T) {
	c, s := example(), State{Dir: t.TempDir()}
	audits := func() bool {
		return slices.ContainsFunc(controlPlaneCommands(c, s)[1].Args, func(arg string) bool { return strings.HasPrefix(arg, "--audit-") })
	}
	if audits() {
		t.Error("the API server audits without a policy")
	}
	c.AuditPolicy = "kind: Policy\n"
	if err := WriteIdentities(c, s); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(s.auditPolicy())
	if err != nil || string(got) != c.AuditPolicy || !audits() {
		t.Errorf("audits: %v; policy: %q, %v", audits(), got, err)
	}
	if c.SameRequest(example()) {
		t.Error("another audit policy is the same request")
	}
}

func TestNetworkConfig(t *testing.T) {
	content, err := networkConfig(example().Addresses().Pods, example().Addresses().PodGateway, false)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Plugins []struct {
			Type string
			IPAM struct {
				Ranges [][]struct{ Subnet, Gateway string }
			}
		}
	}
	if err := json.Unmarshal(content, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Plugins) != 1 || got.Plugins[0].Type != "bridge" || got.Plugins[0].IPAM.Ranges[0][0].Subnet != "10.214.2.0/24" {
		t.Errorf("the CNI configuration is\n%s", content)
	}
}

func TestContainerdText(t *testing.T) {
	text := containerdText(example(), Runtime{Snapshotter: "native", RestrictOOMScore: true})
	for _, want := range []string{
		`snapshotter = "native"`, `restrict_oom_score_adj = true`, `BinaryName = "/cache/runc"`,
		`sandbox = "localhost/pause:1"`, `address = "/run/containerd/containerd.sock"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("config.toml lacks %s:\n%s", want, text)
		}
	}
}

func TestIdentitiesKnowTheNode(t *testing.T) {
	s := State{Dir: t.TempDir()}
	if err := WriteIdentities(example(), s); err != nil {
		t.Fatal(err)
	}
	var kubelet bool
	for _, id := range nodeIdentities("dgx-0", example().Addresses().Node) {
		kubelet = kubelet || id.Name == "system:node:dgx-0" && slices.Contains(id.Groups, "system:nodes")
	}
	if !kubelet {
		t.Error("no identity is the node's")
	}
	for _, path := range []string{s.Kubeconfig(), s.Path("etc", "kubelet.kubeconfig"), s.Path("pki", "sa.key")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}
