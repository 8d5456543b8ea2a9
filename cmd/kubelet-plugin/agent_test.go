package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/podprocs"
)

// testAgent is of a node without hardware that serves GPUs as extended resources,
// whose folders are in root.
func testAgent(t *testing.T, root string) *agent {
	t.Helper()
	client := labelled(map[string]string{"pods": "classic"})
	registry := prometheus.NewRegistry()
	metrics, err := driver.NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(root, "data")
	selector := newNodeSelector(t.Context(), client, "dgx-0", data, v1alpha1.DevicePluginConfig{
		Kinds: []string{"gpu"}, NodeSelector: map[string]string{"pods": "classic"},
	})
	resources, err := deviceplugin.New(t.Context(), deviceplugin.Options{
		DriverName: "eks-hybrid-dra", DataDir: data, Dir: filepath.Join(root, "device-plugins"), CDIDir: filepath.Join(root, "cdi"),
		Kubelet: kubelet.New(root, root, ""), Processes: podprocs.New(root), Registry: registry,
		Kinds: selector.serves, Resources: []deviceplugin.Resource{{Name: "nvidia.com/gpu", Kind: device.KindGPU}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := driver.New(t.Context(), driver.Options{
		DriverName: "eks-hybrid-dra", NodeName: "dgx-0", DataDir: data, RegistrarDir: filepath.Join(root, "registry"), CDIDir: filepath.Join(root, "cdi"),
		KubeClient: client, Processes: podprocs.New(root), Reserve: resources, Metrics: metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &agent{Driver: d, resources: resources, selector: selector}
}

// testRoot returns a folder with others in it, whose paths are short enough for
// sockets.
func testRoot(t *testing.T, folders ...string) string {
	t.Helper()
	root, err := os.MkdirTemp("", "agent") //nolint:usetesting // its path would be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	for _, folder := range folders {
		if err := os.Mkdir(filepath.Join(root, folder), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAnAgentIsReadyWithBothOfItsParts(t *testing.T) {
	err := testAgent(t, testRoot(t)).Ready(t.Context())
	for _, part := range []string{"the plugin's services are not started yet", "the device plugin is not started yet"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want an error that says %q", err, part)
		}
	}
}

func TestAnAgentEndsWithAnyOfItsParts(t *testing.T) {
	for name, test := range map[string]struct {
		folders []string
		labels  map[string]string
		want    string
	}{
		"the node's labels are others":   {[]string{"data", "registry", "device-plugins"}, map[string]string{"pods": "claims"}, "the node's labels say otherwise than before"},
		"the device plugin cannot go on": {[]string{"data", "registry"}, nil, "device plugin: look for kubelet's folder of device plugins"},
		"nothing can be told kubelet of": {[]string{"data", "device-plugins"}, nil, "registry"},
	} {
		t.Run(name, func(t *testing.T) {
			a := testAgent(t, testRoot(t, test.folders...))
			if test.labels != nil {
				a.selector.client = labelled(test.labels)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			err := a.Run(ctx)
			if ctx.Err() != nil || err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error that says %q", err, test.want)
			}
		})
	}
}
