package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/attachsocket"
)

// maxState bounds the OCI state, in bytes. Its annotations are the pod's.
const maxState = 4 << 20

// container is the container that is about to start.
type container struct {
	procfs    string
	pid       int
	pod       attachsocket.Pod
	sandboxID string
	// netns is the network namespace, identity what tells it from others, and
	// path where it is bound on the host, or empty.
	netns    *os.File
	identity string
	path     string
}

// ociState is what a runtime tells its hooks, as in the OCI runtime
// specification.
type ociState struct {
	Pid         int               `json:"pid"`
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations"`
}

// ociConfig is the part that matters here of a bundle's config.json.
type ociConfig struct {
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
	} `json:"linux"`
}

// The annotations that tell what a container belongs to: those of containerd
// (internal/cri/annotations in its source), and then those of CRI-O.
func sandboxIDKeys() []string {
	return []string{"io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"}
}

func podKeys() (namespace, name, uid []string) {
	return []string{"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace", "io.kubernetes.cri-o.Namespace"},
		[]string{"io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name", "io.kubernetes.cri-o.KubeName"},
		[]string{"io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"}
}

// crioLabels is CRI-O's annotation with the container's labels, a JSON object.
const crioLabels = "io.kubernetes.cri-o.Labels"

func readContainer(in io.Reader, procfs string) (_ *container, err error) {
	data, err := io.ReadAll(io.LimitReader(in, maxState))
	if err != nil {
		return nil, fmt.Errorf("read the container's state from the runtime: %w", err)
	}
	var state ociState
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, fmt.Errorf("decode the container's state from the runtime: %w", err)
	}
	if state.Pid <= 0 {
		return nil, fmt.Errorf("the runtime gives no pid of the container (%d): the hook must run as createRuntime hook", state.Pid)
	}
	config, err := readConfig(state.Bundle)
	if err != nil {
		return nil, err
	}
	c := &container{procfs: procfs, pid: state.Pid}
	if err := c.identify(state.Annotations, config.Annotations); err != nil {
		return nil, err
	}
	if c.netns, err = os.Open(c.proc("ns/net")); err != nil {
		return nil, fmt.Errorf("open the container's network namespace: %w", err)
	}
	if c.identity, err = attachsocket.Identity(c.netns); err != nil {
		return nil, errors.Join(err, c.netns.Close())
	}
	c.path = c.boundPath(state.Bundle, config)
	return c, nil
}

func readConfig(bundle string) (ociConfig, error) {
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return ociConfig{}, fmt.Errorf("read the container's configuration: %w", err)
	}
	var config ociConfig
	if err := json.Unmarshal(data, &config); err != nil {
		return ociConfig{}, fmt.Errorf("decode the container's configuration %s: %w", path, err)
	}
	return config, nil
}

func (c *container) proc(file string) string {
	return filepath.Join(c.procfs, strconv.Itoa(c.pid), file)
}

// identify finds the pod and the sandbox in the annotations.
func (c *container) identify(sources ...map[string]string) error {
	for _, s := range sources[:] {
		var labels map[string]string
		if err := json.Unmarshal([]byte(s[crioLabels]), &labels); err == nil {
			sources = append(sources, labels)
		}
	}
	find := func(keys []string) string {
		for _, key := range keys {
			for _, s := range sources {
				if s[key] != "" {
					return s[key]
				}
			}
		}
		return ""
	}
	namespace, name, uid := podKeys()
	c.pod = attachsocket.Pod{Namespace: find(namespace), Name: find(name), UID: find(uid)}
	c.sandboxID = find(sandboxIDKeys())
	if c.sandboxID == "" || c.pod.UID == "" {
		return fmt.Errorf("the container's annotations do not tell its pod: want %s and %s, or their CRI-O equivalents; a container runtime older than containerd 1.7 does not set them",
			sandboxIDKeys()[0], uid[0])
	}
	return nil
}

// boundPath returns where the runtime has bound the namespace, which is where a
// CNI plugin must be able to find it when no process is left in it. Containerd
// tells a container only the /proc path of its sandbox's process, but the
// sandbox's own bundle beside the container's has it.
func (c *container) boundPath(bundle string, own ociConfig) string {
	candidates := netPaths(own)
	if config, err := readConfig(filepath.Join(filepath.Dir(bundle), c.sandboxID)); err == nil {
		candidates = append(candidates, netPaths(config)...)
	}
	for _, dir := range []string{"/var/run/netns", "/run/netns"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // a runtime need not use it
		}
		for _, entry := range entries {
			candidates = append(candidates, filepath.Join(dir, entry.Name()))
		}
	}
	for _, path := range candidates {
		if !strings.HasPrefix(path, "/proc/") && c.isAt(path) {
			return path
		}
	}
	return ""
}

func netPaths(config ociConfig) []string {
	var paths []string
	for _, n := range config.Linux.Namespaces {
		if n.Type == "network" && n.Path != "" {
			paths = append(paths, n.Path)
		}
	}
	return paths
}

// isAt tells whether the container's network namespace is bound at a path.
func (c *container) isAt(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	identity, err := attachsocket.Identity(file)
	return file.Close() == nil && err == nil && identity == c.identity
}
