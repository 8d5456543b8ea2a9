package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	nadclient "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/client/clientset/versioned"
	nadfake "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/client/clientset/versioned/fake"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

const allowFrom = "eks-hybrid-dra/allow-network-attachments-from"

// newCluster returns Networks of a cluster with NetworkAttachmentDefinitions of
// some configurations, by "namespace/name", and namespaces with a value of the
// annotation that lets others in.
func newCluster(t *testing.T, definitions, namespaces map[string]string) *node {
	t.Helper()
	n := newNode(t, fakePlugins(t, "sriov", "tuning", "pool"))
	nads := nadfake.NewSimpleClientset()
	for key, config := range definitions {
		namespace, name, _ := strings.Cut(key, "/")
		nad := &nadv1.NetworkAttachmentDefinition{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       nadv1.NetworkAttachmentDefinitionSpec{Config: config},
		}
		if _, err := nads.K8sCniCncfIoV1().NetworkAttachmentDefinitions(namespace).Create(t.Context(), nad, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	client := fake.NewClientset()
	for name, value := range namespaces {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{allowFrom: value}}}
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	n.Client, n.Definitions = client, nads
	n.Networks = New(n.Options)
	return n
}

func TestResolve(t *testing.T) {
	const single = `{"cniVersion":"0.4.0","name":"fast","type":"sriov","ipam":{"type":"pool"}}`
	const wantSingle = `{"cniVersion":"0.4.0","name":"fast","plugins":[` + single + `]}`
	n := newCluster(t, map[string]string{
		"team/single":   single,
		"team/list":     `{"cniVersion":"1.0.0","name":"fast","plugins":[{"type":"sriov"},{"type":"tuning"}]}`,
		"team/nameless": `{"cniVersion":"1.0.0","type":"sriov"}`,
		"team/fast":     "",
		"team/fastlist": " ",
		"infra/single":  single,
		"open/single":   single,
	}, map[string]string{"infra": "other, team", "open": "*"})
	for file, config := range map[string]string{
		"10-broken.conf":    `{`,
		"20-other.conf":     `{"cniVersion":"1.0.0","name":"other","type":"sriov"}`,
		"30-fast.conf":      single,
		"40-list.conflist":  `{"cniVersion":"1.0.0","name":"fastlist","plugins":[{"type":"sriov"}]}`,
		"50-fast.conf":      `{"cniVersion":"1.0.0","name":"fast","type":"other"}`,
		"fastlist/one.conf": `{"type":"tuning"}`,
	} {
		path := filepath.Join(n.ConfDir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		ref  v1alpha1.NetAttachDef
		want string
	}{
		"single plugin":                        {v1alpha1.NetAttachDef{Name: "single"}, wantSingle},
		"own namespace, spelled out":           {v1alpha1.NetAttachDef{Name: "single", Namespace: "team"}, wantSingle},
		"list":                                 {v1alpha1.NetAttachDef{Name: "list"}, `{"cniVersion":"1.0.0","name":"fast","plugins":[{"type":"sriov"},{"type":"tuning"}]}`},
		"without a name":                       {v1alpha1.NetAttachDef{Name: "nameless"}, `{"cniVersion":"1.0.0","name":"nameless","plugins":[{"cniVersion":"1.0.0","name":"nameless","type":"sriov"}]}`},
		"file of the host":                     {v1alpha1.NetAttachDef{Name: "fast"}, wantSingle},
		"files of the host":                    {v1alpha1.NetAttachDef{Name: "fastlist"}, `{"cniVersion":"1.0.0","name":"fastlist","plugins":[{"type":"sriov"},{"type":"tuning"}]}`},
		"other namespace that names this one":  {v1alpha1.NetAttachDef{Name: "single", Namespace: "infra"}, wantSingle},
		"other namespace that lets all others": {v1alpha1.NetAttachDef{Name: "single", Namespace: "open"}, wantSingle},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := n.Networks.Resolve(t.Context(), "team", test.ref)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("unexpected configuration (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefuseToResolve(t *testing.T) {
	n := newCluster(t, map[string]string{
		"team/json":      `{"type":`,
		"team/text":      `"sriov"`,
		"team/null":      `null`,
		"team/typeless":  `{"cniVersion":"1.0.0","name":"x"}`,
		"team/nolist":    `{"cniVersion":"1.0.0","name":"x","plugins":[]}`,
		"team/number":    `{"cniVersion":"1.0.0","name":5,"type":"sriov"}`,
		"team/version":   `{"cniVersion":"9.0.0","name":"x","type":"sriov"}`,
		"team/noversion": `{"cniVersion":"new","name":"x","type":"sriov"}`,
		"team/plugin":    `{"cniVersion":"1.0.0","name":"x","type":"ib-sriov"}`,
		"team/path":      `{"cniVersion":"1.0.0","name":"x","type":"../sriov"}`,
		"team/ipam":      `{"cniVersion":"1.0.0","name":"x","type":"sriov","ipam":{"type":"lots"}}`,
		"team/name":      `{"cniVersion":"1.0.0","name":"../x","type":"sriov"}`,
		"team/empty":     ``,
		"infra/closed":   `{"cniVersion":"1.0.0","name":"x","type":"sriov"}`,
	}, map[string]string{"infra": "teams,others", "team": "*"})
	if err := os.WriteFile(filepath.Join(n.ConfDir, "10-broken.conf"), []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		namespace string
		// err lists what the user must find in the error, beside the name.
		err []string
	}{
		"json":      {"", []string{"spec.config", "want a JSON object", "unexpected end"}},
		"text":      {"", []string{"spec.config", "want a JSON object"}},
		"null":      {"", []string{"spec.config", "want a JSON object"}},
		"typeless":  {"", []string{"spec.config", "single plugin", "missing 'type'"}},
		"nolist":    {"", []string{"spec.config", "list of plugins", "no plugins"}},
		"number":    {"", []string{"spec.config", "name"}},
		"version":   {"", []string{"cniVersion is 9.0.0", "versions up to 1."}},
		"noversion": {"", []string{`cniVersion "new"`}},
		"plugin":    {"", []string{`no CNI plugin "ib-sriov" in ` + n.BinDirs[0], "install it"}},
		"path":      {"", []string{`"../sriov" is no name of a CNI plugin`}},
		"ipam":      {"", []string{`the "ipam" of plugin sriov`, `no CNI plugin "lots"`}},
		"name":      {"", []string{`network's name "../x"`}},
		"empty":     {"", []string{"spec.config is empty", n.ConfDir, `the name "empty"`, "10-broken.conf"}},
		"missing":   {"", []string{"does not exist", "netAttachDef"}},
		"closed":    {"infra", []string{"namespace infra does not allow claims of namespace team", allowFrom, "add team"}},
		"absent":    {"nowhere", []string{"read namespace nowhere", allowFrom, "not found"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := n.Networks.Resolve(t.Context(), "team", v1alpha1.NetAttachDef{Name: name, Namespace: test.namespace})
			if err == nil {
				t.Fatalf("want an error, got %s", got)
			}
			full := "NetworkAttachmentDefinition team/" + name
			if test.namespace != "" {
				full = "NetworkAttachmentDefinition " + test.namespace + "/" + name
			}
			for _, want := range append(test.err, full) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// An API server that does not serve a resource answers with text, one that has
// no such object with a Status.
func TestResolveTellsMissingKindFromMissingObject(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		err    string
	}{
		"kind": {http.NotFound, "does not know the kind NetworkAttachmentDefinition"},
		"object": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"details":{"name":"fast","kind":"network-attachment-definitions"}}`)
		}, "NetworkAttachmentDefinition team/fast does not exist"},
		"permission": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)
		}, "needs the verb get for network-attachment-definitions.k8s.cni.cncf.io"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(test.answer)
			defer server.Close()
			nads, err := nadclient.NewForConfig(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			_, err = New(Options{Definitions: nads}).Resolve(t.Context(), "team", v1alpha1.NetAttachDef{Name: "fast"})
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("want an error with %q, got %v", test.err, err)
			}
		})
	}
}

func TestRealIPAM(t *testing.T) {
	for name, test := range map[string]struct {
		ipam string
		want Result
	}{
		"host-local": {
			`{"type":"host-local","ranges":[[{"subnet":"10.9.0.0/24","rangeStart":"10.9.0.7","rangeEnd":"10.9.0.7"}]],"routes":[{"dst":"10.0.0.0/8"}]}`,
			Result{
				Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.7/24")},
				Routes:    []kernel.Route{{Destination: netip.MustParsePrefix("10.0.0.0/8"), Gateway: netip.MustParseAddr("10.9.0.1")}},
			},
		},
		"static": {
			`{"type":"static","addresses":[{"address":"192.168.10.5/24"},{"address":"fd00::5/64","gateway":"fd00::1"}],"routes":[{"dst":"10.0.0.0/8","gw":"192.168.10.9"},{"dst":"::/0"},{"dst":"172.16.0.0/12"}]}`,
			Result{
				Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.10.5/24"), netip.MustParsePrefix("fd00::5/64")},
				Routes: []kernel.Route{
					{Destination: netip.MustParsePrefix("10.0.0.0/8"), Gateway: netip.MustParseAddr("192.168.10.9")},
					{Destination: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fd00::1")},
					{Destination: netip.MustParsePrefix("172.16.0.0/12")},
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, realPlugins(t))
			network := strings.ReplaceAll(t.Name(), "/", "-")
			t.Cleanup(func() {
				// What host-local keeps lies in a folder of its own choice.
				if err := os.RemoveAll(filepath.Join("/var/lib/cni/networks", network)); err != nil {
					t.Error(err)
				}
			})
			config, err := n.Networks.ResolveIPAM(network, json.RawMessage(test.ipam))
			if err != nil {
				t.Fatal(err)
			}
			// Twice: with the one address of the range, that works only if
			// deleting gives it back.
			for range 2 {
				call := newCall(newNetns(t))
				got, err := n.Networks.Add(t.Context(), config, call)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got, compareNetip); diff != "" {
					t.Errorf("unexpected result (-want +got):\n%s", diff)
				}
				if err := n.Networks.Del(t.Context(), config, call); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestRefuseIPAM(t *testing.T) {
	n := newNode(t, fakePlugins(t, "host-local"))
	for name, test := range map[string]struct {
		name, ipam string
		err        []string
	}{
		"no object":        {"net", `5`, []string{"ipam: want an object"}},
		"null":             {"net", `null`, []string{"ipam: want an object"}},
		"no type":          {"net", `{}`, []string{"ipam.type", "host-local"}},
		"type is a number": {"net", `{"type":5}`, []string{"ipam.type"}},
		"no IPAM plugin":   {"net", `{"type":"bridge"}`, []string{`ipam.type: "bridge"`, "host-local, static", "netAttachDef"}},
		"not installed":    {"net", `{"type":"static"}`, []string{"ipam", `no CNI plugin "static" in ` + n.BinDirs[0]}},
		"files":            {"net", `{"type":"host-local","datadir":"/etc"}`, []string{"ipam.datadir", "may not name files of the host"}},
		"in odd letters":   {"net", `{"type":"host-local","reſolvConf":"/etc/shadow"}`, []string{"may not name files of the host"}},
		"former release":   {"net", `{"type":"whereabouts","etcd_host":"x","etcd_ca_cert_file":"/etc/shadow"}`, []string{"etcd_", "may not name files of the host"}},
		"network's name":   {"a/b", `{"type":"host-local"}`, []string{`"a/b"`}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := n.Networks.ResolveIPAM(test.name, json.RawMessage(test.ipam))
			if err == nil {
				t.Fatalf("want an error, got %s", got)
			}
			for _, want := range test.err {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// FuzzParse looks for what gets through and is not ready to run.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"fast","type":"sriov","ipam":{"type":"pool"}}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","plugins":[{"type":"sriov"},{"type":"tuning"}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := parse(raw, "net")
		if err != nil || len(list.Plugins) == 0 {
			return
		}
		stored, err := encode(list)
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", raw, err)
		}
		call := newCall("")
		if _, err := prepare(stored, call); err != nil && !strings.Contains(err.Error(), "cniVersion") {
			t.Fatalf("%s was read, written as %s, and cannot be read again: %v", raw, stored, err)
		}
	})
}

// The context bounds every look at the API.
func TestResolveEndsWithItsContext(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	nads, err := nadclient.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(Options{Definitions: nads}).Resolve(ctx, "team", v1alpha1.NetAttachDef{Name: "fast"}); err == nil || !strings.Contains(err.Error(), "team/fast") {
		t.Errorf("want an error that names team/fast, got %v", err)
	}
}
