package parts

import (
	"fmt"
	"strings"
)

// DefaultKubernetesVersion is the Kubernetes version that parts/kubernetes
// pins; other versions are built from a module made from it.
const DefaultKubernetesVersion = "v1.37.1"

// Part is one module that is built into one or more programs.
type Part struct {
	// Name is what the user sees in progress lines.
	Name string
	// Version is shown beside the name and is part of the cache folder's name.
	Version string
	// Dir is the folder of the module, relative to the source folder.
	Dir string
	// Packages are the arguments of go build that name what to build.
	Packages []string
	// Programs are the files that the build must leave in the output folder.
	Programs []string
	// Links are further names of the one program of a multi-call part.
	Links []string
	// CGO says that the build needs a C compiler.
	CGO bool
	// Tags are build tags.
	Tags []string
	// LDFlags are linker flags.
	LDFlags []string
}

// kubernetesPrograms are the names by which the combined binary is called.
func kubernetesPrograms() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"}
}

// All returns every part of a cluster that runs the given Kubernetes version,
// which must have the form v1.37.1.
func All(kubernetesVersion string) ([]Part, error) {
	kubernetes, err := kubernetesPart(kubernetesVersion)
	if err != nil {
		return nil, err
	}
	stripped := []string{"-s", "-w"}
	return []Part{
		{
			Name: "runc", Version: "v1.5.2", Dir: "parts/runc",
			Packages: []string{"tool"}, Programs: []string{"runc"},
			// Static, so that a cached binary does not depend on the machine's
			// libseccomp; the pure Go resolvers keep glibc from complaining.
			CGO: true, Tags: []string{"seccomp", "netgo", "osusergo"},
			LDFlags: append([]string{"-linkmode external", "-extldflags -static"}, stripped...),
		},
		{
			Name: "cni", Version: "v1.9.1", Dir: "parts/cni", Packages: []string{"tool"},
			Programs: []string{"bridge", "ptp", "host-device", "loopback", "host-local", "static", "portmap", "tuning"},
			LDFlags:  stripped,
		},
		{
			Name: "etcd", Version: "v3.7.3", Dir: "parts/etcd", Packages: []string{"tool"},
			Programs: []string{"etcd"}, LDFlags: stripped,
		},
		{
			Name: "containerd", Version: "v2.4.2", Dir: "parts/containerd", Packages: []string{"tool"},
			Programs: []string{"containerd", "containerd-shim-runc-v2", "ctr"},
			Tags:     []string{"no_btrfs", "no_devmapper", "no_zfs"},
			LDFlags:  append([]string{"-X github.com/containerd/containerd/v2/version.Version=v2.4.2"}, stripped...),
		},
		kubernetes,
		{
			Name: "pause", Version: "1", Dir: "pause", Packages: []string{"."},
			Programs: []string{"pause"}, LDFlags: stripped,
		},
	}, nil
}

func kubernetesPart(version string) (Part, error) {
	major, minor, _, err := splitVersion(version)
	if err != nil {
		return Part{}, err
	}
	flags := []string{"-s", "-w"}
	for _, module := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags,
			fmt.Sprintf("-X %s.gitVersion=%s", module, version),
			fmt.Sprintf("-X %s.gitMajor=%s", module, major),
			fmt.Sprintf("-X %s.gitMinor=%s", module, minor))
	}
	return Part{
		Name: "kubernetes", Version: version, Dir: "parts/kubernetes",
		Packages: []string{"."}, Programs: []string{"kubernetes"}, Links: kubernetesPrograms(),
		LDFlags: flags,
	}, nil
}

// splitVersion takes v1.37.1 apart.
func splitVersion(version string) (major, minor, patch string, err error) {
	fields := strings.Split(strings.TrimPrefix(version, "v"), ".")
	bad := len(fields) != 3 || !strings.HasPrefix(version, "v") || fields[0] != "1"
	for _, field := range fields {
		bad = bad || field == "" || strings.Trim(field, "0123456789") != ""
	}
	if bad {
		return "", "", "", fmt.Errorf("the Kubernetes version %q is not of the form %s", version, DefaultKubernetesVersion)
	}
	return fields[0], fields[1], fields[2], nil
}
