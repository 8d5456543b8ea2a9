package main

import (
	"context"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid"
)

// hybrid adds to the manager what hybrid nodes need around the driver, if it is
// configured.
func (o *options) hybrid(ctx context.Context, mgr manager.Manager, config *rest.Config, client kubernetes.Interface, registry *prometheus.Registry, events record.EventRecorder) error {
	if o.hybridConfig == "" {
		return nil
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	// In a pod, the host's name is the pod's.
	pod, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find out the name of this pod: %w", err)
	}
	return hybrid.Setup(ctx, mgr, hybrid.Options{
		Client: client, Objects: objects, Namespace: o.namespace, ConfigFile: o.hybridConfig,
		Self:   &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: o.namespace, Name: pod},
		Events: events, Registry: registry,
	})
}
