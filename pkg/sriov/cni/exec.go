package cni

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

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

const (
	// pluginPath is where a CNI plugin finds programs that it needs, such as
	// iptables. Ours would be that of a container.
	pluginPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// maxStderr bounds how much of what a plugin writes gets into an error,
	// which ends up in the event of a pod.
	maxStderr = 1024
	// busyWait is for how long a program that somebody writes to at this
	// moment is tried again.
	busyWait = 2 * time.Second
	// outputWait is for how long the output of a plugin is read after its end,
	// if it has left a process behind that holds it open.
	outputWait = time.Second
)

// executor runs CNI plugins on the host, for libcni.
type executor struct {
	version.PluginDecoder
	host *Host
}

var _ invoke.Exec = &executor{}

// FindInPath returns the path of a plugin on the host.
func (e *executor) FindInPath(plugin string, dirs []string) (string, error) {
	if plugin == "" || plugin == "." || plugin == ".." || strings.ContainsAny(plugin, "/\x00") {
		return "", fmt.Errorf("%q is no name of a CNI plugin", plugin)
	}
	var found string
	err := e.host.look(func() error {
		for _, dir := range dirs {
			path := filepath.Join(dir, plugin)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
				found = path
				return nil
			}
		}
		return fmt.Errorf("there is no CNI plugin %q in %s on the host: install it there on every node with such VFs, or correct the \"type\" in the configuration", plugin, strings.Join(dirs, " or "))
	})
	return found, err
}

// ExecPlugin runs a plugin and returns what it answers. When ctx ends, the
// plugin ends too, with all processes that it has started in its group.
func (e *executor) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	began := time.Now()
	err := e.host.run(func() error {
		for {
			stdout.Reset()
			stderr.Reset()
			cmd := command(ctx, path, stdin, env)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if !errors.Is(err, unix.ETXTBSY) || time.Since(began) > busyWait {
				return err
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	// The plugin itself has answered; only something that it left behind
	// still holds its output.
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	name := filepath.Base(path)
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("CNI plugin %s was ended after %s without an answer: %w%s",
			name, time.Since(began).Round(time.Millisecond), context.Cause(ctx), written(stderr.Bytes()))
	}
	return nil, pluginError(name, err, stdout.Bytes(), stderr.Bytes())
}

func command(ctx context.Context, path string, stdin []byte, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path)
	cmd.Dir = "/"
	cmd.Env = pluginEnv(env)
	cmd.Stdin = bytes.NewReader(stdin)
	// The plugin does not outlive this process either: the next one will
	// delete what this one was adding. The signal comes when the thread ends
	// that has started the plugin; that one waits for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = outputWait
	return cmd
}

// pluginEnv returns the environment of a plugin: what the CNI specification
// says (libcni adds all of this process's own to it), and a path.
func pluginEnv(env []string) []string {
	clean := []string{pluginPath}
	for _, kv := range env {
		switch key, _, _ := strings.Cut(kv, "="); key {
		case "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH":
			clean = append(clean, kv)
		}
	}
	return clean
}

// pluginError puts together what a plugin that failed has said: an error object
// on stdout, and anything on stderr.
func pluginError(name string, err error, stdout, stderr []byte) error {
	var said types.Error
	if json.Unmarshal(stdout, &said) == nil && said.Msg != "" {
		return fmt.Errorf("CNI plugin %s: %w%s", name, &said, written(stderr))
	}
	if len(bytes.TrimSpace(stdout)) > 0 {
		return fmt.Errorf("CNI plugin %s: %w: it answered %q%s", name, err, tail(stdout), written(stderr))
	}
	return fmt.Errorf("CNI plugin %s: %w%s", name, err, written(stderr))
}

func written(stderr []byte) string {
	if len(bytes.TrimSpace(stderr)) == 0 {
		return ""
	}
	return fmt.Sprintf("; it wrote %q", tail(stderr))
}

func tail(b []byte) string {
	b = bytes.TrimSpace(b)
	if len(b) > maxStderr {
		b = b[len(b)-maxStderr:]
	}
	return strings.ToValidUTF8(string(b), "")
}
