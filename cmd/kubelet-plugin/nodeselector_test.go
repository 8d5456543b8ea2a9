package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

func labelled(labels map[string]string) *fake.Clientset {
	return fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "dgx-0", Labels: labels}})
}

// silent is an API server that does not answer.
func silent() *fake.Clientset {
	client := fake.NewClientset()
	client.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("no route to host")
	})
	return client
}

func TestLabelsSayWhatANodeServes(t *testing.T) {
	both := v1alpha1.DevicePluginConfig{Kinds: []string{"gpu", "vf"}, NodeSelector: map[string]string{"pods": "classic"}}
	for name, test := range map[string]struct {
		client *fake.Clientset
		config v1alpha1.DevicePluginConfig
		want   []device.Kind
	}{
		"no selector":  {silent(), v1alpha1.DevicePluginConfig{Kinds: []string{"gpu"}}, []device.Kind{"gpu"}},
		"nothing":      {silent(), v1alpha1.DevicePluginConfig{NodeSelector: both.NodeSelector}, nil},
		"the label":    {labelled(map[string]string{"pods": "classic", "a": "b"}), both, []device.Kind{"gpu", "vf"}},
		"another":      {labelled(map[string]string{"pods": "claims"}), both, nil},
		"nobody knows": {silent(), both, []device.Kind{"gpu"}}, // what it served before
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store, err := claimstore.Open(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = store.Close() }()
			if _, err := store.Take("pci-0000:1b:00.0", claimstore.Holding{
				Claim: device.Claim{UID: "device-plugin"}, DevicePlugin: &claimstore.DevicePlugin{Kind: device.KindGPU},
			}); err != nil {
				t.Fatal(err)
			}
			s, err := newNodeSelector(t.Context(), test.client, "dgx-0", dir, test.config)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.serves, test.want) {
				t.Errorf("serves %v, want %v", s.serves, test.want)
			}
		})
	}
}

func TestAnotherLabelStartsThePluginAgain(t *testing.T) {
	config := v1alpha1.DevicePluginConfig{Kinds: []string{"gpu"}, NodeSelector: map[string]string{"pods": "classic"}}
	client := labelled(nil)
	s, err := newNodeSelector(t.Context(), client, "dgx-0", filepath.Join(t.TempDir()), config)
	if err != nil {
		t.Fatal(err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.follow(done); err != nil {
		t.Errorf("the same labels: %v", err)
	}
	if _, err := client.CoreV1().Nodes().Update(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "dgx-0", Labels: config.NodeSelector}}, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.follow(t.Context()); err == nil || !strings.Contains(err.Error(), "starts again") {
		t.Errorf("want an error that says that the plugin starts again, got %v", err)
	}
}
