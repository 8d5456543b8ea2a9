package cni

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// ptp returns the configuration of two real plugins: a veth pair with an
// address of host-local.
func ptp(subnet, dataDir string) any {
	return map[string]any{
		"type": "ptp",
		"ipam": map[string]any{"type": "host-local", "subnet": subnet, "dataDir": dataDir},
	}
}

var compareNetip = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func TestPluginsAreGivenTheVF(t *testing.T) {
	n := newNode(t, fakePlugins(t, "first", "second"))
	config := list(t, "net",
		map[string]any{"type": "first", "log": n.Log, "result": json.RawMessage(`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"x","mac":"02:00:00:00:00:01"}]}`)},
		map[string]any{
			"type": "second", "log": n.Log, "capabilities": map[string]bool{"mac": true, "deviceID": true},
			"result": json.RawMessage(`{"cniVersion":"1.0.0",
				"interfaces":[{"name":"veth0"},{"name":"net1","sandbox":"x","mac":"02:00:00:00:00:01"}],
				"ips":[{"address":"10.1.0.5/24","gateway":"10.1.0.1","interface":1},{"address":"10.2.0.5/24","interface":0}],
				"routes":[{"dst":"0.0.0.0/0"},{"dst":"fd00::/64","gw":"fe80::1","priority":7}]}`),
		})
	call := newCall(newNetns(t))
	call.MAC = "02:00:00:00:00:01"
	got, err := n.Networks.Add(t.Context(), config, call)
	if err != nil {
		t.Fatal(err)
	}
	want := Result{
		Interface: "net1", MAC: "02:00:00:00:00:01",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")},
		Routes: []kernel.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1")},
			{Destination: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fe80::1"), Metric: 7},
		},
	}
	if diff := cmp.Diff(want, got, compareNetip); diff != "" {
		t.Errorf("unexpected result (-want +got):\n%s", diff)
	}
	if err := n.Networks.Del(t.Context(), config, call); err != nil {
		t.Fatal(err)
	}
	all := calls(t, n.Log)
	if diff := cmp.Diff([]string{"first ADD", "second ADD", "second DEL", "first DEL"}, said(all)); diff != "" {
		t.Fatalf("unexpected calls (-want +got):\n%s", diff)
	}
	for _, c := range all {
		fields := map[string]string{}
		for _, key := range []string{"deviceID", "pciBusID", "runtimeConfig"} {
			fields[key] = string(c.Config[key])
		}
		want := map[string]string{"deviceID": `"0000:18:00.1"`, "pciBusID": `"0000:18:00.1"`, "runtimeConfig": ""}
		if c.Plugin == "second" {
			want = map[string]string{"deviceID": "", "pciBusID": "", "runtimeConfig": `{"deviceID":"0000:18:00.1","mac":"02:00:00:00:00:01"}`}
		}
		if diff := cmp.Diff(want, fields); diff != "" {
			t.Errorf("%s %s: unexpected configuration (-want +got):\n%s", c.Plugin, c.Command, diff)
		}
		if !strings.Contains(c.Env["CNI_ARGS"], "MAC=02:00:00:00:00:01") {
			t.Errorf("%s %s: CNI_ARGS %q do not have the MAC", c.Plugin, c.Command, c.Env["CNI_ARGS"])
		}
		if previous := c.Plugin == "second" || c.Command == "DEL"; previous != (c.Config["prevResult"] != nil) {
			t.Errorf("%s %s: previous result %s, want one: %t", c.Plugin, c.Command, c.Config["prevResult"], previous)
		}
	}
}

func TestDelWithoutNamespaceAndCache(t *testing.T) {
	n := newNode(t, fakePlugins(t, "fake", "pool"))
	config := list(t, "net", map[string]any{"type": "fake", "log": n.Log, "result": json.RawMessage(`{}`), "ipam": map[string]any{"type": "pool"}})
	call := newCall(newNetns(t))
	if _, err := n.Networks.Add(t.Context(), config, call); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n.CacheDir); err != nil {
		t.Fatal(err)
	}
	// The file that the namespace was bound to stays, as it does after a crash.
	closeNetns(t, call.NetnsPath)
	for range 2 {
		// A process that has just started knows no more than the stored
		// configuration and call.
		if err := New(n.Options).Del(t.Context(), config, call); err != nil {
			t.Fatal(err)
		}
	}
	all := calls(t, n.Log)
	if diff := cmp.Diff([]string{"fake ADD", "fake DEL", "pool DEL", "fake DEL", "pool DEL"}, said(all)); diff != "" {
		t.Fatalf("unexpected calls (-want +got):\n%s", diff)
	}
	for _, c := range all[1:] {
		if path := c.Env["CNI_NETNS"]; path != "" {
			t.Errorf("%s was given the network namespace %q, which is gone", c.Plugin, path)
		}
		if id := string(c.Config["deviceID"]); id != `"0000:18:00.1"` {
			t.Errorf("%s was given the device %s", c.Plugin, id)
		}
	}
}

func TestRefuseCalls(t *testing.T) {
	n := newNode(t, fakePlugins(t, "fake"))
	config := list(t, "net", fakeConfig{Type: "fake", Log: n.Log})
	for name, test := range map[string]struct {
		config []byte
		change func(*Call)
		err    string
	}{
		"no sandbox":      {config, func(c *Call) { c.ContainerID = "" }, "sandbox ID of pod team/trainer"},
		"no interface":    {config, func(c *Call) { c.IfName = "" }, "interface name for pod team/trainer"},
		"no JSON":         {[]byte(`{`), func(*Call) {}, "read the stored CNI configuration"},
		"without plugins": {[]byte(`{"name":"net"}`), func(*Call) {}, "it has no plugins"},
	} {
		t.Run(name, func(t *testing.T) {
			call := newCall("")
			test.change(&call)
			_, add := n.Networks.Add(t.Context(), test.config, call)
			for _, err := range []error{add, n.Networks.Del(t.Context(), test.config, call)} {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("want an error with %q, got %v", test.err, err)
				}
			}
		})
	}
	if got := calls(t, n.Log); len(got) > 0 {
		t.Errorf("a plugin was run: %v", said(got))
	}
}

func TestRealPluginsAttachAndDetach(t *testing.T) {
	n := newNode(t, realPlugins(t))
	config := list(t, "net",
		ptp("10.9.0.0/24", t.TempDir()),
		map[string]any{"type": "tuning", "capabilities": map[string]bool{"mac": true}, "mtu": 1400, "dataDir": t.TempDir()})
	call := newCall(newNetns(t))
	call.MAC = "02:00:00:00:00:01"
	got, err := n.Networks.Add(t.Context(), config, call)
	if err != nil {
		t.Fatal(err)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")}; got.Interface != "net1" || got.MAC != call.MAC || !cmp.Equal(want, got.Addresses, compareNetip) {
		t.Errorf("want interface net1 with %s and %v, got %+v", call.MAC, want, got)
	}
	seen := inNetns(t, call.NetnsPath, "ip", "address", "show", "dev", "net1")
	for _, want := range []string{"10.9.0.2/24", call.MAC, "mtu 1400"} {
		if !strings.Contains(seen, want) {
			t.Errorf("the pod's interface does not have %s: %s", want, seen)
		}
	}
	if err := n.Networks.Del(t.Context(), config, call); err != nil {
		t.Fatal(err)
	}
	if seen := inNetns(t, call.NetnsPath, "ip", "-o", "link"); strings.Contains(seen, "net1") {
		t.Errorf("the interface is still there: %s", seen)
	}
}

// host-device gives no address back once the pod's namespace is gone.
func TestAddressIsFreeAgainAfterTheNamespaceIsGone(t *testing.T) {
	n := newNode(t, realPlugins(t))
	inNetns(t, n.Host.Netns, "ip", "link", "add", "vf0", "type", "veth", "peer", "name", "wire0")
	dataDir := t.TempDir()
	plugin := map[string]any{
		"type": "host-device", "device": "vf0",
		"ipam": map[string]any{"type": "host-local", "subnet": "10.9.0.0/24", "rangeStart": "10.9.0.7", "rangeEnd": "10.9.0.7", "dataDir": dataDir},
	}
	config := list(t, "net", plugin)
	call := newCall(newNetns(t))
	// The plugin would look for the device in the machine's own sysfs.
	call.DeviceID = ""
	got, err := n.Networks.Add(t.Context(), config, call)
	if err != nil {
		t.Fatal(err)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("10.9.0.7/24")}; got.Interface != "net1" || got.MAC == "" || !cmp.Equal(want, got.Addresses, compareNetip) {
		t.Errorf("want interface net1 with %v and its MAC, got %+v", want, got)
	}
	closeNetns(t, call.NetnsPath)
	if err := n.Networks.Del(t.Context(), config, call); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dataDir, "net", "10.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("addresses still taken: %v (error: %v)", left, err)
	}
}
