package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/image"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/pki"
)

// Outside is a further node that somebody else runs, on another machine.
type Outside struct {
	// Name is the node's.
	Name string
	// Address is the node's, at which the control plane reaches its kubelet.
	Address netip.Addr
	// Pods is the network of the node's pods, which only the node knows.
	Pods netip.Prefix
	// Dir is the folder to write, and SeenAs its path on the node.
	Dir, SeenAs string
}

// OutsideNode is what has to be done on an outside node.
type OutsideNode struct {
	// Programs are those that the node needs, by name, with their paths here.
	Programs map[string]string `json:"programs"`
	// Kubelet and Containerd are the arguments of both.
	Kubelet    []string `json:"kubelet"`
	Containerd []string `json:"containerd"`
	// Files belong at standard paths: path there by path in the folder.
	Files map[string]string `json:"files"`
	// SandboxImage is an image archive in the folder, to be imported at first.
	SandboxImage string `json:"sandboxImage"`
	// Network is the path of the control plane's network namespace, from which
	// the node has to be reachable.
	Network string `json:"network"`
}

// WriteOutside writes what an outside node needs to join the cluster: its
// identity and its configuration.
func WriteOutside(c *Config, s State, o Outside) (*OutsideNode, error) {
	if err := writeOutsideIdentity(c, s, o); err != nil {
		return nil, err
	}
	// On the node, programs lie where they usually do.
	there := *c
	there.NodeName, there.Programs = o.Name, map[string]string{"runc": "/usr/local/bin/runc"}
	seen := State{Dir: o.SeenAs}
	kubelet, err := kubeletConfig(&there, seen, "/")
	if err != nil {
		return nil, err
	}
	network, err := networkConfig(o.Pods.Masked(), o.Pods.Masked().Addr().Next(), true)
	if err != nil {
		return nil, err
	}
	here := State{Dir: o.Dir}
	for path, content := range map[string][]byte{
		here.Path("etc", "kubelet.yaml"):    kubelet,
		here.Path("etc", "resolv.conf"):     []byte("# The test cluster has no DNS.\n"),
		here.Path("etc", "cni.conflist"):    network,
		here.Path("etc", "containerd.toml"): []byte(containerdText(&there, Runtime{Snapshotter: "overlayfs"})),
	} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return nil, fmt.Errorf("write the node's configuration: %w", err)
		}
	}
	if err := writePause(c, here.Path("pause.tar")); err != nil {
		return nil, err
	}
	return &OutsideNode{
		Programs:     outsidePrograms(c),
		Kubelet:      kubeletArgs(&there, seen, o.Address),
		Containerd:   []string{"--config=" + containerdConfig},
		SandboxImage: "pause.tar",
		Files: map[string]string{
			containerdConfig:                     "etc/containerd.toml",
			"/etc/cni/net.d/10-cluster.conflist": "etc/cni.conflist",
		},
	}, nil
}

func writeOutsideIdentity(c *Config, s State, o Outside) error {
	here := State{Dir: o.Dir}
	authority, err := pki.OpenAuthority(s.Path("pki"), here.Path("pki"))
	if err != nil {
		return err
	}
	for _, id := range nodeIdentities(o.Name, o.Address) {
		if err := authority.Issue(id); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(here.Path("etc"), 0o755); err != nil {
		return fmt.Errorf("make the folder of the configuration: %w", err)
	}
	server := fmt.Sprintf("https://%s:%d", c.Addresses().ControlPlane, APIPort)
	return authority.Kubeconfig(here.Path("etc", Kubelet+".kubeconfig"), c.Name, server, Kubelet)
}

// nodeIdentities are a node's, towards the API server and as a server.
func nodeIdentities(name string, address netip.Addr) []pki.Identity {
	user, groups := "system:node:"+name, []string{"system:nodes"}
	return []pki.Identity{
		{File: Kubelet, Name: user, Groups: groups},
		{File: "kubelet-server", Name: user, Groups: groups, DNSNames: []string{name}, IPs: []net.IP{address.AsSlice()}},
	}
}

// outsidePrograms are the cluster's, less those of the control plane.
func outsidePrograms(c *Config) map[string]string {
	programs := map[string]string{}
	for name, path := range c.Programs {
		if role, ok := RoleOf(name); ok && role == ControlPlane {
			continue
		}
		if name != "kubectl" && name != "kubernetes" && name != "pause" {
			programs[name] = path
		}
	}
	return programs
}

func writePause(c *Config, path string) error {
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return fmt.Errorf("make the archive of the sandbox image: %w", err)
	}
	return errors.Join(image.Write(f, PauseImage, c.Programs["pause"]), f.Close())
}
