package attach

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// namespace is a network namespace, alive as long as its process.
type namespace struct{ process *exec.Cmd }

func newNamespace(ctx context.Context) (*namespace, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "sleep", "infinity")
	// The process must not outlive this program, nor end by a key press that is
	// meant for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return &namespace{cmd}, nil
}

func (n *namespace) path() string { return n.proc("ns/net") }

func (n *namespace) proc(file string) string {
	return fmt.Sprintf("/proc/%d/%s", n.process.Process.Pid, file)
}

func (n *namespace) close() error {
	if err := n.process.Process.Kill(); err != nil {
		return fmt.Errorf("end a network namespace: %w", err)
	}
	_ = n.process.Wait() // it was killed
	return nil
}

// interfaces names those in the namespace, but for the loopback's.
func (n *namespace) interfaces() ([]string, error) {
	text, err := os.ReadFile(n.proc("net/dev"))
	if err != nil {
		return nil, fmt.Errorf("look at the interfaces of a pod: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		name, _, isInterface := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); isInterface && name != "lo" {
			names = append(names, name)
		}
	}
	return names, nil
}

// sandbox is what a container runtime has made before it runs a container's
// hooks: a network namespace that is bound to a file, and a folder that
// describes the container.
type sandbox struct {
	*namespace
	// bound is the file.
	bound string
	// state is what hooks are told.
	state []byte
}

func (s *sandbox) close() error {
	var err error
	if s.bound != "" {
		if err = unix.Unmount(s.bound, unix.MNT_DETACH); err != nil {
			err = fmt.Errorf("unbind a network namespace: %w", err)
		}
	}
	return errors.Join(err, s.namespace.close())
}

// bind binds the network namespace to a file, where it can be found when its
// processes have ended.
func (s *sandbox) bind(file string) error {
	err := os.WriteFile(file, nil, 0o600)
	if err == nil {
		err = unix.Mount(s.path(), file, "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("bind a network namespace: %w", err)
	}
	s.bound = file
	return nil
}

// newSandbox makes one for the pod, in the folder.
func newSandbox(ctx context.Context, pod *corev1.Pod, folder, id string) (_ *sandbox, err error) {
	netns, err := newNamespace(ctx)
	if err != nil {
		return nil, err
	}
	s := &sandbox{namespace: netns}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	bundle := filepath.Join(folder, id)
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		return nil, fmt.Errorf("make a container's folder: %w", err)
	}
	if err := s.bind(filepath.Join(bundle, "netns")); err != nil {
		return nil, err
	}
	annotations := map[string]string{
		"io.kubernetes.cri.sandbox-id":        id,
		"io.kubernetes.cri.sandbox-name":      pod.Name,
		"io.kubernetes.cri.sandbox-namespace": pod.Namespace,
		"io.kubernetes.cri.sandbox-uid":       string(pod.UID),
	}
	config, err := json.Marshal(map[string]any{
		"ociVersion": "1.2.1", "annotations": annotations,
		"linux": map[string]any{"namespaces": []map[string]string{{"type": "network", "path": s.bound}}},
	})
	if err != nil {
		return nil, fmt.Errorf("describe a container: %w", err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600); err != nil {
		return nil, fmt.Errorf("describe a container: %w", err)
	}
	s.state, err = json.Marshal(map[string]any{
		"ociVersion": "1.2.1", "id": "container-" + id, "status": "creating", "bundle": bundle,
		"pid": netns.process.Process.Pid, "annotations": annotations,
	})
	if err != nil {
		return nil, fmt.Errorf("describe a container: %w", err)
	}
	return s, nil
}

// run runs a hook as a container runtime does and returns how long that took,
// from the start of its process to the end.
func (s *sandbox) run(ctx context.Context, hook *cdispec.Hook) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, hook.Path)
	cmd.Args, cmd.Env, cmd.Stdin = hook.Args, hook.Env, bytes.NewReader(s.state)
	start := time.Now()
	output, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("run %s: %w: %s", hook.Path, err, bytes.TrimSpace(output))
	}
	return took, nil
}

// hookOf returns the hook that a claim's CDI spec has for its containers.
func hookOf(cdiRoot string, claim draclient.Claim) (*cdispec.Hook, error) {
	files, err := filepath.Glob(filepath.Join(cdiRoot, "*"+string(claim.UID)+"*.json"))
	if err != nil {
		return nil, fmt.Errorf("look for the CDI spec of claim %s: %w", claim, err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read the CDI spec of claim %s: %w", claim, err)
		}
		var spec cdispec.Spec
		if err := json.Unmarshal(text, &spec); err != nil {
			return nil, fmt.Errorf("read the CDI spec %s: %w", path, err)
		}
		edits := []cdispec.ContainerEdits{spec.ContainerEdits}
		for _, dev := range spec.Devices {
			edits = append(edits, dev.ContainerEdits)
		}
		for _, e := range edits {
			for _, hook := range e.Hooks {
				if filepath.Base(hook.Path) == "attach-hook" {
					return hook, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("claim %s: no CDI spec in %s has a hook that attaches devices; found %v", claim, cdiRoot, files)
}

// poll asks until the answer is yes.
func poll(ctx context.Context, what string, ask func(context.Context) (bool, error)) error {
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, ask)
	if err != nil {
		return fmt.Errorf("wait for %s: %w", what, err)
	}
	return nil
}
