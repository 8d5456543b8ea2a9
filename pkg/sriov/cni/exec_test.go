package cni

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPluginRunsInTheHostsNetworkWithACleanEnvironment(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("CNI_NETNS_OVERRIDE", "true")
	n := newNode(t, fakePlugins(t, "fake"))
	call := newCall(newNetns(t))
	if _, err := n.Networks.Add(t.Context(), list(t, "net", fakeConfig{Type: "fake", Log: n.Log, Result: json.RawMessage(`{}`)}), call); err != nil {
		t.Fatal(err)
	}
	got := calls(t, n.Log)
	if len(got) != 1 {
		t.Fatalf("want one call, got %v", said(got))
	}
	if want := strings.TrimSpace(inNetns(t, n.Host.Netns, "readlink", "/proc/self/ns/net")); got[0].Netns != want {
		t.Errorf("the plugin ran in network namespace %s, want the host's, %s", got[0].Netns, want)
	}
	want := map[string]string{
		"PATH":            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"CNI_COMMAND":     "ADD",
		"CNI_CONTAINERID": "sandbox1",
		"CNI_NETNS":       call.NetnsPath,
		"CNI_IFNAME":      "net1",
		"CNI_PATH":        n.BinDirs[0],
		"CNI_ARGS": "IgnoreUnknown=true;K8S_POD_NAMESPACE=team;K8S_POD_NAME=trainer;" +
			"K8S_POD_INFRA_CONTAINER_ID=sandbox1;K8S_POD_UID=11111111-2222-3333-4444-555555555555",
	}
	if diff := cmp.Diff(want, got[0].Env); diff != "" {
		t.Errorf("unexpected environment (-want +got):\n%s", diff)
	}
}

// This process must not change with what runs on the host.
func TestOwnNamespacesStay(t *testing.T) {
	needRoot(t)
	const own = "/proc/self/ns/net"
	before, err := os.Readlink(own)
	if err != nil {
		t.Fatal(err)
	}
	host := Host{Root: "/", Netns: newNetns(t)}
	for range 100 {
		if err := host.run(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	after, err := os.Readlink(own)
	if err != nil || after != before {
		t.Errorf("this process is in network namespace %s, was in %s (error: %v)", after, before, err)
	}
	await(t, "the end of the threads that were on the host", func() bool {
		tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(tasks, func(task string) bool {
			now, err := os.Readlink(task)
			return err == nil && now != before
		})
	})
}

func TestContextEndsPluginAndItsChildren(t *testing.T) {
	n := newNode(t, fakePlugins(t, "fake"))
	pipe := newPipe(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := make(chan error)
	go func() {
		_, err := n.Networks.Add(ctx, list(t, "net", fakeConfig{Type: "fake", Log: n.Log, HangOn: "ADD", Hanging: pipe}), newCall(newNetns(t)))
		failed <- err
	}()
	pids, err := os.ReadFile(pipe)
	if err != nil {
		t.Fatal(err)
	}
	cancel(errors.New("the hook has no more time"))
	err = <-failed
	if err == nil {
		t.Fatal("want an error, got none")
	}
	for _, want := range []string{`CNI network "net"`, "interface net1", "pod team/trainer", "CNI plugin fake was ended", "the hook has no more time"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	for _, pid := range strings.Fields(string(pids)) {
		await(t, "the end of process "+pid+" of the plugin", func() bool { return gone(t, pid) })
	}
	if diff := cmp.Diff([]string{"fake ADD", "fake DEL"}, said(calls(t, n.Log))); diff != "" {
		t.Errorf("unexpected calls (-want +got):\n%s", diff)
	}
}

func TestFailuresNameWhatHappened(t *testing.T) {
	n := newNode(t, fakePlugins(t, "fake"))
	for name, test := range map[string]struct {
		config fakeConfig
		// err lists what the user must find in the error.
		err []string
	}{
		"error object": {
			fakeConfig{Type: "fake", FailOn: "ADD", Message: "link refused", Stderr: "mlx5: no such VF"},
			[]string{`CNI network "net"`, "add interface net1 to pod team/trainer", "CNI plugin fake: link refused", "mlx5: no such VF"},
		},
		"stderr alone": {
			fakeConfig{Type: "fake", FailOn: "ADD", Stderr: "panic: oops"},
			[]string{"CNI plugin fake", "exit status 3", "panic: oops"},
		},
		"no JSON": {
			fakeConfig{Type: "fake", Result: json.RawMessage(`"hello"`)},
			[]string{"unmarshal"},
		},
		"undoing fails too": {
			fakeConfig{Type: "fake", Result: json.RawMessage(`[]`), FailOn: "DEL", Message: "busy"},
			[]string{"unmarshal", "and undoing it failed", "CNI plugin fake: busy"},
		},
		"plugin not there": {
			fakeConfig{Type: "sriov"},
			[]string{`no CNI plugin "sriov" in ` + n.BinDirs[0], "install it"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.Networks.Add(t.Context(), list(t, "net", test.config), newCall(newNetns(t)))
			if err == nil {
				t.Fatal("want an error, got none")
			}
			for _, want := range test.err {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}
