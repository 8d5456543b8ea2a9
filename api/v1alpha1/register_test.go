package v1alpha1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecode(t *testing.T) {
	const head = `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"GpuConfig"`
	for name, test := range map[string]struct {
		raw  string
		want Config
		// err lists what the user must find in the error.
		err []string
	}{
		"empty GpuConfig":       {raw: head + `}`, want: DefaultGpuConfig()},
		"unknown field":         {raw: head + `,"sharng":{}}`, err: []string{`unknown field "sharng"`}},
		"repeated field":        {raw: head + `,"kind":"GpuConfig"}`, err: []string{`duplicate field "kind"`}},
		"unknown kind":          {raw: `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"GpuConfg"}`, err: []string{`"GpuConfg"`, "GpuConfig"}},
		"unknown version":       {raw: `{"apiVersion":"resource.eks-hybrid-dra/v9","kind":"GpuConfig"}`, err: []string{`v9`, "resource.eks-hybrid-dra/v1alpha1"}},
		"another driver's kind": {raw: `{"apiVersion":"resource.nvidia.com/v1beta1","kind":"GpuConfig"}`, err: []string{`resource.nvidia.com/v1beta1`, "resource.eks-hybrid-dra/v1alpha1"}},
		"no version":            {raw: `{"kind":"GpuConfig"}`, err: []string{"apiVersion is missing", "resource.eks-hybrid-dra/v1alpha1"}},
		"the plugin's own kind": {raw: `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"NodeConfig"}`, err: []string{`"NodeConfig"`, "kind GpuConfig or VfConfig"}},
		"no kind":               {raw: `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1"}`, err: []string{"kind is missing", "GpuConfig"}},
		"not JSON":              {raw: `{`, err: []string{"unexpected end of JSON input"}},
		"nothing":               {raw: ``, err: []string{"no configuration given", "GpuConfig"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NewDecoder().Decode([]byte(test.raw))
			if len(test.err) == 0 && err != nil {
				t.Fatalf("unexpected error: %v", err)
			}
			if len(test.err) > 0 && err == nil {
				t.Fatalf("want an error with %q, got %v", test.err, got)
			}
			for _, want := range test.err {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if err == nil {
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("unexpected configuration (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"GpuConfig"}`))
	f.Add([]byte(`{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"GpuConfig","x":[1,{}]}`))
	f.Add([]byte(vfHead + `,"vlan":5,"addresses":["192.168.10.5/24"],"routes":[{"destination":"10.0.0.0/8","gateway":"192.168.10.1"}]}`))
	f.Add([]byte(vfHead + `,"ipam":{"type":"host-local","x":"<\u2028>"},"ifName":"net1"}`))
	f.Add([]byte(``))
	decoder := NewDecoder()
	f.Fuzz(func(t *testing.T, raw []byte) {
		config, err := decoder.Decode(raw)
		if (config == nil) == (err == nil) {
			t.Fatalf("want either a configuration or an error, got %v and %v", config, err)
		}
		if err == nil {
			sameAfterEncoding(t, config)
		}
	})
}
