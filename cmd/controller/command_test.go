package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Every flag with a wrong value is named, all of them at once.
func TestWrongFlags(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		say  []string
	}{
		"several":      {[]string{"--driver-name=Not_A_Domain", "--unused-after=0s", "--workers=0", "--topology-label=a b"}, []string{`--driver-name "Not_A_Domain"`, "--unused-after", "--workers 0", `--topology-label "a b"`}},
		"unknown flag": {[]string{"--drivername=x"}, []string{"--drivername"}},
		"argument":     {[]string{"start"}, []string{"start"}},
		"lease":        {[]string{"--leader-elect-renew-deadline=20s"}, []string{"--leader-elect-renew-deadline 20s", "--leader-elect-lease-duration 15s"}},
		"webhook":      {[]string{"--webhook-port=0", "--webhook-secret=A"}, []string{"--webhook-port 0", `--webhook-secret "A"`}},
		"no claims":    {[]string{"--enable-claims=false"}, []string{"--hybrid-config is empty", "--enable-webhook is true"}},
		"no cluster":   {[]string{"--kubeconfig=/nowhere/kubeconfig"}, []string{`--kubeconfig "/nowhere/kubeconfig"`}},
	} {
		t.Run(name, func(t *testing.T) {
			command := newCommand()
			var out bytes.Buffer
			command.SetOut(&out)
			command.SetErr(&out)
			command.SetArgs(test.args)
			err := command.ExecuteContext(t.Context())
			if err == nil {
				t.Fatal("started")
			}
			for _, want := range test.say {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
		})
	}
}

// A cluster without claims is told apart from one that does not answer yet.
func TestClusterWithoutClaims(t *testing.T) {
	client := fake.NewClientset()
	const want = "does not serve resource.k8s.io/v1, as Kubernetes does since 1.34, so that there are no claims to allocate"
	err := claimsServed(t.Context(), client)
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--enable-claims=false") {
		t.Errorf("got %v, want %q in it", err, want)
	}
	client.Resources = []*metav1.APIResourceList{{GroupVersion: "resource.k8s.io/v1"}}
	if err := claimsServed(t.Context(), client); err != nil {
		t.Errorf("where there are claims: %v", err)
	}
	client.PrependReactor("get", "resource", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	if err := claimsServed(t.Context(), client); err != nil {
		t.Errorf("where the API server does not answer: %v", err)
	}
}

func TestVersion(t *testing.T) {
	command := newCommand()
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetArgs([]string{"--version"})
	if err := command.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(out.String(), "controller version v") {
		t.Errorf("%q, %v", out.String(), err)
	}
}
