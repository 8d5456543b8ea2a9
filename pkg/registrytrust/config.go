package registrytrust

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// ConfigFile is the name of the configuration in its folder; the files with
// certificates lie beside it.
const ConfigFile = "registries.yaml"

// defaultCAFile is the file of a registry that names none.
const defaultCAFile = "ca.crt"

// Config says which registries are to be trusted because of which certificates.
type Config struct {
	// Registries may be empty, and then nothing is trusted any more.
	Registries []Registry `json:"registries"`
}

// Registry is one registry.
type Registry struct {
	// Host is the registry as image names have it: harbor.example.com, or
	// harbor.example.com:8443 where they have a port.
	Host string `json:"host"`
	// CAFiles are names of files beside the configuration, each with one or more
	// certificates in PEM. If there are none it is ca.crt.
	CAFiles []string `json:"caFiles,omitempty"`
}

// ParseConfig decodes a configuration strictly, and names everything that is
// wrong with it.
func ParseConfig(content []byte) (*Config, error) {
	config := &Config{}
	if err := yaml.UnmarshalStrict(content, config); err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	if config.Registries == nil {
		// Nobody means to take all trust away by a file that is empty by mistake.
		return nil, fmt.Errorf("%s: registries is missing: list the registries, or write \"registries: []\" to trust none any more", ConfigFile)
	}
	var errs []error
	folders := map[string]bool{}
	for i, registry := range config.Registries {
		if err := registry.validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: registries[%d]: %w", ConfigFile, i, err))
			continue
		}
		if folder := FolderOf(registry.Host); folders[folder] {
			errs = append(errs, fmt.Errorf("%s: registries[%d]: host %q is there twice: name all its certificates in one entry", ConfigFile, i, registry.Host))
		} else {
			folders[folder] = true
		}
		if len(registry.CAFiles) == 0 {
			config.Registries[i].CAFiles = []string{defaultCAFile}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return config, nil
}

func (r Registry) validate() error {
	errs := []error{validateHost(r.Host)}
	for i, file := range r.CAFiles {
		// Names of files that kubelet makes for itself begin with two dots.
		if file == "" || file != filepath.Base(file) || strings.HasPrefix(file, "..") || file == "." || file == "/" {
			errs = append(errs, fmt.Errorf("caFiles[%d] %q: want the name of a file beside %s, which is a key of the ConfigMap or Secret", i, file, ConfigFile))
		}
		if slices.Index(r.CAFiles, file) != i {
			errs = append(errs, fmt.Errorf("caFiles[%d] %q is there twice", i, file))
		}
	}
	return errors.Join(errs...)
}

func validateHost(host string) error {
	const form = "want a host or host:port as in the names of images, such as harbor.example.com or harbor.example.com:8443"
	name, port, hasPort := host, "", false
	// A colon is part of an IPv6 address, which is in brackets then.
	if i := strings.LastIndex(host, ":"); i >= 0 && !strings.HasSuffix(host, "]") {
		name, port, hasPort = host[:i], host[i+1:], true
	}
	if hasPort {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return fmt.Errorf("host %q: %q is no port: %s", host, port, form)
		}
	}
	if address, ok := strings.CutPrefix(name, "["); ok {
		address, closed := strings.CutSuffix(address, "]")
		if a, err := netip.ParseAddr(address); err != nil || !a.Is6() || a.Zone() != "" || !closed {
			return fmt.Errorf("host %q: %q is no IPv6 address: %s", host, name, form)
		}
		return nil
	}
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return fmt.Errorf("host %q: %s", host, form)
	}
	if name == "docker.io" || name == "index.docker.io" {
		return fmt.Errorf("host %q: Docker Hub answers under other names than its images have, and has a public certificate: leave it out", host)
	}
	return nil
}

// FolderOf returns the name of the folder in which containerd looks first for
// the settings of a registry: host_port_ for host:port (hostDirectory in
// containerd's remotes/docker/config/hosts.go, the same from 1.6 to 2.4).
func FolderOf(host string) string {
	if i := strings.LastIndex(host, ":"); i > 0 {
		return host[:i] + "_" + host[i+1:] + "_"
	}
	return host
}

// addressOf returns where the registry listens, and under which name.
func addressOf(host string) (address, name string) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return host, name
	}
	name = strings.Trim(host, "[]")
	return net.JoinHostPort(name, "443"), name
}
