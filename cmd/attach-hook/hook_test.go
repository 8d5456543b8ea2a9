package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/attachsocket"
)

func TestArguments(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--data-dir=/d", "--claim=a", "--wait=5s"}, ""},
		{[]string{"--data-dir=d", "--claim=a"}, `--data-dir "d": want an absolute path`},
		{[]string{"--data-dir=/d"}, `--claim ""`},
		{[]string{"--data-dir=/d", "--claim=../a"}, `--claim "../a"`},
		{[]string{"--data-dir=/d", "--claim=a", "--wait=0s"}, "--wait 0s"},
		{[]string{"--data-dir=/d", "--claim=a", "now"}, `unexpected argument "now"`},
		{[]string{"--no-such-flag"}, "no-such-flag"},
	} {
		_, err := parse(tc.args)
		if (tc.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%v: %v, want %q", tc.args, err, tc.want)
		}
	}
}

func TestPodAndSandboxAreFound(t *testing.T) {
	pod := attachsocket.Pod{Namespace: "ns", Name: "pod", UID: "uid"}
	for name, tc := range map[string]struct {
		state, config map[string]string
		want          string
	}{
		"containerd": {nil, map[string]string{
			"io.kubernetes.cri.sandbox-id": "s", "io.kubernetes.cri.sandbox-uid": "uid",
			"io.kubernetes.cri.sandbox-name": "pod", "io.kubernetes.cri.sandbox-namespace": "ns",
		}, ""},
		"containerd, in the state": {map[string]string{
			"io.kubernetes.cri.sandbox-id": "s", "io.kubernetes.cri.sandbox-uid": "uid",
			"io.kubernetes.cri.sandbox-name": "pod", "io.kubernetes.cri.sandbox-namespace": "ns",
		}, nil, ""},
		"CRI-O": {nil, map[string]string{
			"io.kubernetes.cri-o.SandboxID": "s", "io.kubernetes.pod.uid": "uid",
			"io.kubernetes.pod.name": "pod", "io.kubernetes.pod.namespace": "ns",
		}, ""},
		"CRI-O, in labels": {nil, map[string]string{
			"io.kubernetes.cri-o.SandboxID": "s",
			"io.kubernetes.cri-o.Labels":    `{"io.kubernetes.pod.uid":"uid","io.kubernetes.pod.name":"pod","io.kubernetes.pod.namespace":"ns"}`,
		}, ""},
		"an old containerd": {nil, map[string]string{"io.kubernetes.cri.sandbox-id": "s"}, "io.kubernetes.cri.sandbox-uid"},
		"no pod":            {nil, nil, "annotations do not tell its pod"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &container{}
			err := c.identify(tc.state, tc.config)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("want %q, got %v", tc.want, err)
				}
				return
			}
			if err != nil || c.sandboxID != "s" || c.pod != pod {
				t.Errorf("%+v, sandbox %q, %v", c.pod, c.sandboxID, err)
			}
		})
	}
}

func TestStatesThatMakeNoSense(t *testing.T) {
	args := []string{"--data-dir=" + t.TempDir(), "--claim=a"}
	for state, want := range map[string]string{
		`{"pid":`:                           "decode the container's state",
		`{"pid":0,"bundle":"/x"}`:           "createRuntime",
		`{"pid":1,"bundle":"/no/such/dir"}`: "read the container's configuration",
	} {
		if err := run(t.Context(), args, strings.NewReader(state), "/proc"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", state, err, want)
		}
	}
}

// A claim's record decides without the plugin only if it says everything.
func TestRecordHasAll(t *testing.T) {
	procfs := t.TempDir()
	for path, content := range map[string]string{
		"sys/kernel/random/boot_id": "boot-1\n",
		"7/net/dev":                 "Inter-|   Receive\n face |bytes\n    lo: 0 0\n  net1: 1 2\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(procfs, path)), 0o755), os.WriteFile(filepath.Join(procfs, path), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	c := &container{procfs: procfs, pid: 7, sandboxID: "s", identity: "4:5"}
	if diff := cmp.Diff([]string{"lo", "net1"}, c.interfaces()); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
	const (
		net1    = `{"family":"vf","device":"vf-1","attachment":{"interface":"net1"}}`
		net2    = `{"family":"vf","device":"vf-2","attachment":{"interface":"net2"}}`
		bare    = `{"family":"vf","device":"vf-2","attachment":{}}`
		devices = `{"family":"gpu","device":"gpu-0"},{"family":"vf","device":"vf-1","attach":true}`
		second  = `,{"family":"vf","device":"vf-2","attach":true}`
		here    = `{"id":"s","namespace":"4:5"}`
	)
	for name, tc := range map[string]struct {
		boot, devices, sandbox, attached string
		want                             bool
	}{
		"all there":             {"boot-1", devices, here, net1, true},
		"another boot":          {"boot-0", devices, here, net1, false},
		"another sandbox":       {"boot-1", devices, `{"id":"t","namespace":"4:5"}`, net1, false},
		"another namespace":     {"boot-1", devices, `{"id":"s","namespace":"4:6"}`, net1, false},
		"one is missing":        {"boot-1", devices + second, here, net1, false},
		"interface is missing":  {"boot-1", devices + second, here, net1 + "," + net2, false},
		"one has no interface":  {"boot-1", devices + second, here, net1 + "," + bare, true},
		"nothing is to be done": {"boot-1", `{"family":"gpu","device":"gpu-0"}`, here, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			var r record
			text := `{"bootID":"` + tc.boot + `","devices":[` + tc.devices + `],"attached":[{"sandbox":` + tc.sandbox + `,"devices":[` + tc.attached + `]}]}`
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Fatal(err)
			}
			if got := r.hasAll(c); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	if (record{}).hasAll(c) {
		t.Error("no record, and all is there")
	}
}
