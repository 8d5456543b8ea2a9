package plugin

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Kind is one driver's plugin.
type Kind struct {
	// Title is how people know the driver.
	Title string
	// Driver is its name in the cluster.
	Driver  string
	program string
	args    func(Place) []string
}

// Place is where a plugin works.
type Place struct {
	KubeletRoot string
	CDIRoot     string
	Node        string
	Kubeconfig  string
}

// RegistrarDir is where a plugin puts its registrar socket.
func (p Place) RegistrarDir() string { return filepath.Join(p.KubeletRoot, "plugins_registry") }

// Ours returns our plugin as the image has it, unpacked into dir, with further
// arguments.
func Ours(image, dir string, more ...string) (Kind, error) {
	if err := unpack(image, dir); err != nil {
		return Kind{}, fmt.Errorf("take our programs out of the image %s: %w", image, err)
	}
	return Kind{
		Title:   "eks-hybrid-dra",
		Driver:  "eks-hybrid-dra",
		program: filepath.Join(dir, "kubelet-plugin"),
		args: func(p Place) []string {
			return append([]string{
				"--node-name=" + p.Node, "--kubeconfig=" + p.Kubeconfig, "--kubelet-root=" + p.KubeletRoot, "--cdi-root=" + p.CDIRoot,
				"--simulate=dgx-h200", "--http-address=127.0.0.1:0",
			}, more...)
		},
	}, nil
}

// unpack writes the programs of an image into a folder.
func unpack(image, dir string) (err error) {
	img, err := tarball.ImageFromPath(image, nil)
	if err != nil {
		return err
	}
	files := mutate.Extract(img)
	defer func() { err = errors.Join(err, files.Close()) }()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for archive := tar.NewReader(files); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, isProgram := strings.CutPrefix(strings.TrimPrefix(header.Name, "/"), "usr/bin/")
		if !isProgram || header.Typeflag != tar.TypeReg || name != filepath.Base(name) {
			continue
		}
		if err := writeProgram(filepath.Join(dir, name), archive); err != nil {
			return err
		}
	}
}

// copyProgram writes a program as it is written when an image is unpacked. A
// file that the linker made lies in the kernel's cache in larger pieces, more
// of which then count as memory of the process.
func copyProgram(from, to string) (err error) {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return writeProgram(to, file)
}

func writeProgram(path string, content io.Reader) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	// Only the plain methods, so that both programs are written alike.
	_, err = io.Copy(struct{ io.Writer }{file}, struct{ io.Reader }{content})
	return err
}

const (
	peerModule  = "sigs.k8s.io/dra-example-driver"
	peerProgram = "dra-example-kubeletplugin"
)

// Example compiles the plugin of Kubernetes' example driver, which does no
// more than every driver has to, into dir. Module is the folder of the Go
// module that pins its version. As GPUs it has only names.
func Example(ctx context.Context, module, dir string) (Kind, error) {
	linked, path := filepath.Join(dir, peerProgram+".linked"), filepath.Join(dir, peerProgram)
	// The same linker flags as for our image.
	build := exec.CommandContext(ctx, "go", "build", "-C", module, "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", linked, peerModule+"/cmd/"+peerProgram)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return Kind{}, fmt.Errorf("compile %s: %w: %s", peerProgram, err, lastLine(output))
	}
	if err := copyProgram(linked, path); err != nil {
		return Kind{}, fmt.Errorf("copy %s: %w", peerProgram, err)
	}
	version, err := moduleVersion(path)
	if err != nil {
		return Kind{}, err
	}
	return Kind{
		Title:   "dra-example-driver " + version,
		Driver:  "gpu.example.com",
		program: path,
		args: func(p Place) []string {
			return []string{
				"--node-name=" + p.Node, "--kubeconfig=" + p.Kubeconfig, "--cdi-root=" + p.CDIRoot,
				"--kubelet-registrar-directory-path=" + p.RegistrarDir(),
				"--kubelet-plugins-directory-path=" + filepath.Join(p.KubeletRoot, "plugins"),
				"--num-devices=8",
				// By default it allows itself 5 requests in a second.
				"--kube-api-qps=10000", "--kube-api-burst=10000",
			}
		},
	}, nil
}

func moduleVersion(path string) (string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("find the version of %s: %w", path, err)
	}
	for _, module := range append(info.Deps, &info.Main) {
		if module.Path == peerModule {
			return module.Version, nil
		}
	}
	return "", fmt.Errorf("find the version of %s: it was not built from %s", path, peerModule)
}

func lastLine(output []byte) string {
	lines := bytes.Split(bytes.TrimSpace(output), []byte("\n"))
	return string(lines[len(lines)-1])
}
