package main

import (
	"context"
	"errors"
	"os"
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
	classic, claims := map[string]string{"pods": "classic", "a": "b"}, map[string]string{"pods": "claims"}
	for name, test := range map[string]struct {
		before *fake.Clientset // at the start before, with both kinds; nil if there was none
		client *fake.Clientset
		config v1alpha1.DevicePluginConfig
		want   []device.Kind
	}{
		"no selector": {nil, silent(), v1alpha1.DevicePluginConfig{Kinds: []string{"gpu"}}, []device.Kind{"gpu"}},
		"nothing":     {labelled(classic), silent(), v1alpha1.DevicePluginConfig{NodeSelector: both.NodeSelector}, nil},
		"the label":   {labelled(claims), labelled(classic), both, []device.Kind{"gpu", "vf"}},
		"another":     {labelled(classic), labelled(claims), both, nil},
		// Nobody knows the labels: it serves what it served before.
		"served before":               {labelled(classic), silent(), both, []device.Kind{"gpu", "vf"}},
		"served before, and less now": {labelled(classic), silent(), v1alpha1.DevicePluginConfig{Kinds: []string{"vf"}, NodeSelector: both.NodeSelector}, []device.Kind{"vf"}},
		"on its way to claims":        {labelled(claims), silent(), both, nil},
		"never started":               {nil, silent(), both, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			// Pods have a GPU still, or had it before there was a device plugin.
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
			if test.before != nil {
				newNodeSelector(t.Context(), test.before, "dgx-0", dir, both)
			}
			s := newNodeSelector(t.Context(), test.client, "dgx-0", dir, test.config)
			if !slices.Equal(s.serves, test.want) {
				t.Errorf("serves %v, want %v", s.serves, test.want)
			}
		})
	}
}

// The note of what was served is no hindrance when it makes no sense, and is gone with
// the kinds.
func TestTheNoteOfWhatANodeServes(t *testing.T) {
	dir := t.TempDir()
	note := filepath.Join(dir, "device-plugin-kinds.json")
	config := v1alpha1.DevicePluginConfig{Kinds: []string{"gpu"}, NodeSelector: map[string]string{"pods": "classic"}}
	if err := os.WriteFile(note, []byte(`["gp`), 0o600); err != nil {
		t.Fatal(err)
	}
	for step, test := range []struct {
		client *fake.Clientset
		config v1alpha1.DevicePluginConfig
		want   []device.Kind
		note   string
	}{
		{silent(), config, nil, `["gp`},
		{labelled(config.NodeSelector), config, []device.Kind{"gpu"}, `["gpu"]`},
		{silent(), config, []device.Kind{"gpu"}, `["gpu"]`},
		{labelled(nil), config, nil, `[]`},
		{silent(), v1alpha1.DevicePluginConfig{}, nil, ""},
	} {
		s := newNodeSelector(t.Context(), test.client, "dgx-0", dir, test.config)
		content, err := os.ReadFile(note)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if !slices.Equal(s.serves, test.want) || string(content) != test.note {
			t.Errorf("step %d: serves %v, want %v; the note is %q, want %q", step, s.serves, test.want, content, test.note)
		}
	}
}

// A full disk does not keep a node from starting.
func TestANodeServesWithoutANote(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "device-plugin-kinds.json"), 0o700); err != nil { // which no file replaces
		t.Fatal(err)
	}
	s := newNodeSelector(t.Context(), silent(), "dgx-0", dir, v1alpha1.DevicePluginConfig{Kinds: []string{"gpu"}})
	if !slices.Equal(s.serves, []device.Kind{"gpu"}) {
		t.Errorf("serves %v", s.serves)
	}
}

func TestAnotherLabelStartsThePluginAgain(t *testing.T) {
	config := v1alpha1.DevicePluginConfig{Kinds: []string{"gpu"}, NodeSelector: map[string]string{"pods": "classic"}}
	client := labelled(nil)
	s := newNodeSelector(t.Context(), client, "dgx-0", filepath.Join(t.TempDir()), config)
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
