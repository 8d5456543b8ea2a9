package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Config is one cluster, as kept in its state folder.
type Config struct {
	// Name is the cluster's name; it is also its kubeconfig context.
	Name string `json:"name"`
	// KubernetesVersion has the form v1.37.1.
	KubernetesVersion string `json:"kubernetesVersion"`
	// FeatureGates has the form A=true,B=false; every component gets it.
	FeatureGates string `json:"featureGates,omitempty"`
	// RuntimeConfig is the API server's --runtime-config.
	RuntimeConfig string `json:"runtimeConfig,omitempty"`
	// AuditPolicy is the content of the API server's audit policy. With one, it
	// writes the log "audit".
	AuditPolicy string `json:"auditPolicy,omitempty"`
	// NodeName is the node's name and hostname.
	NodeName string `json:"nodeName"`
	// NodeLabels has the form a=b,c=d.
	NodeLabels string `json:"nodeLabels,omitempty"`
	// Block is the cluster's private /23: see Addresses.
	Block netip.Prefix `json:"block"`
	// Programs maps program names to their paths.
	Programs map[string]string `json:"programs"`
}

// SameRequest says whether two configs ask for the same cluster, whatever
// addresses it got.
func (c *Config) SameRequest(o *Config) bool {
	return c.Name == o.Name && c.KubernetesVersion == o.KubernetesVersion &&
		c.FeatureGates == o.FeatureGates && c.RuntimeConfig == o.RuntimeConfig &&
		c.NodeName == o.NodeName && c.NodeLabels == o.NodeLabels &&
		c.AuditPolicy == o.AuditPolicy
}

// Validate names the first field that cannot work.
func (c *Config) Validate() error {
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)
	if !label.MatchString(c.Name) {
		return fmt.Errorf("--name %q: want lower-case letters, digits, '-' and '.', at most 63", c.Name)
	}
	if !label.MatchString(c.NodeName) {
		return fmt.Errorf("--node-name %q: want lower-case letters, digits, '-' and '.', at most 63", c.NodeName)
	}
	if _, err := c.gates(); err != nil {
		return err
	}
	for _, pair := range strings.Split(c.NodeLabels, ",") {
		if c.NodeLabels != "" && !strings.Contains(pair, "=") {
			return fmt.Errorf("--node-labels: %q is not of the form key=value", pair)
		}
	}
	return nil
}

// gates decodes FeatureGates, for the kubelet's configuration file.
func (c *Config) gates() (map[string]bool, error) {
	gates := map[string]bool{}
	for _, pair := range strings.Split(c.FeatureGates, ",") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		if value != "true" && value != "false" {
			return nil, fmt.Errorf("--feature-gates: %q is not of the form Name=true or Name=false", pair)
		}
		gates[name] = value == "true"
	}
	return gates, nil
}

// State is a cluster's state folder. All names that the cluster leaves outside
// it (a link, cgroups) derive from its path, so that they can be found again
// without it.
type State struct {
	Dir string
}

// maxStateDir keeps the Unix sockets in the folder below the kernel's limit of
// 108 bytes.
const maxStateDir = 80

// NewState checks the path of a state folder.
func NewState(dir string) (State, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return State{}, fmt.Errorf("--state-dir %q: %w", dir, err)
	}
	if len(abs) > maxStateDir {
		return State{}, fmt.Errorf("--state-dir %s: the path has %d characters, at most %d work, because Unix sockets lie in it", abs, len(abs), maxStateDir)
	}
	for _, hidden := range []string{"/run", "/var/run", "/proc", "/sys", "/dev"} {
		if abs == hidden || strings.HasPrefix(abs, hidden+"/") {
			return State{}, fmt.Errorf("--state-dir %s: the node has its own %s; choose a folder on a disk", abs, hidden)
		}
	}
	return State{Dir: abs}, nil
}

// ID is short and unique for the state folder.
func (s State) ID() string {
	sum := sha256.Sum256([]byte(s.Dir))
	return hex.EncodeToString(sum[:])[:8]
}

// CgroupName is the top cgroup, in every hierarchy, of the cluster's pods.
func (s State) CgroupName() string { return "eks-hybrid-dra-" + s.ID() }

// HostLink is the name of the cluster's one link on the host.
func (s State) HostLink() string { return "ehd-" + s.ID() }

// Path joins names to the state folder.
func (s State) Path(names ...string) string {
	return filepath.Join(append([]string{s.Dir}, names...)...)
}

// Kubeconfig is the admin's kubeconfig.
func (s State) Kubeconfig() string { return s.Path("kubeconfig") }

// Logs is the folder with one log file per component.
func (s State) Logs() string { return s.Path("logs") }

// Socket is where the init process of a role listens.
func (s State) Socket(role Role) string { return s.Path(string(role) + ".sock") }

// Load reads the cluster's config; it returns os.ErrNotExist where there is no
// cluster.
func (s State) Load() (*Config, error) {
	content, err := os.ReadFile(s.Path("cluster.json"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's settings: %w", err)
	}
	c := &Config{}
	if err := json.Unmarshal(content, c); err != nil {
		return nil, fmt.Errorf("decode %s: %w", s.Path("cluster.json"), err)
	}
	return c, nil
}

// Save writes the cluster's config.
func (s State) Save(c *Config) error {
	content, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the cluster's settings: %w", err)
	}
	temp := s.Path("cluster.json.new")
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return fmt.Errorf("write the cluster's settings: %w", err)
	}
	if err := os.Rename(temp, s.Path("cluster.json")); err != nil {
		return errors.Join(fmt.Errorf("write the cluster's settings: %w", err), os.Remove(temp))
	}
	return nil
}
