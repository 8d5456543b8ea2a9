package main

import (
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program/programtest"
)

// Every flag with a wrong value is named, all of them at once.
func TestWrongFlags(t *testing.T) {
	programtest.Refused(t, newCommand, map[string]programtest.Refusal{
		"several":      {Args: []string{"--driver-name=Not_A_Domain", "--unused-after=0s", "--workers=0", "--topology-label=a b"}, Say: []string{`--driver-name "Not_A_Domain"`, "--unused-after", "--workers 0", `--topology-label "a b"`}},
		"unknown flag": {Args: []string{"--drivername=x"}, Say: []string{"--drivername"}},
		"argument":     {Args: []string{"start"}, Say: []string{"start"}},
		"lease":        {Args: []string{"--leader-elect-renew-deadline=20s"}, Say: []string{"--leader-elect-renew-deadline 20s", "--leader-elect-lease-duration 15s"}},
		"webhook":      {Args: []string{"--webhook-port=0", "--webhook-secret=A"}, Say: []string{"--webhook-port 0", `--webhook-secret "A"`}},
		"no claims":    {Args: []string{"--enable-claims=false"}, Say: []string{"--hybrid-config is empty", "--enable-webhook is true"}},
		"no cluster":   {Args: []string{"--kubeconfig=/nowhere/kubeconfig"}, Say: []string{`--kubeconfig "/nowhere/kubeconfig"`}},
	})
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
	programtest.TellsVersion(t, newCommand())
}
