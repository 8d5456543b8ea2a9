package faults

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// networkAPI is what the cluster has to know of NetworkAttachmentDefinitions,
	// and network one that has VFs moved by a CNI plugin.
	networkAPI = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"network-attachment-definitions.k8s.cni.cncf.io"},
		"spec":{"group":"k8s.cni.cncf.io","scope":"Namespaced",
		"names":{"plural":"network-attachment-definitions","singular":"network-attachment-definition","kind":"NetworkAttachmentDefinition"},
		"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object",
		"properties":{"spec":{"type":"object","properties":{"config":{"type":"string"}}}}}}}]}}`
	network = `{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinition","metadata":{"name":"faults"},
		"spec":{"config":"{\"cniVersion\":\"1.0.0\",\"name\":\"faults\",\"plugins\":[{\"type\":\"` + nicPlugin + `\"}]}"}}`
)

// Configurations that have the plugin call CNI plugins.
const (
	vfNetwork = `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"VfConfig","netAttachDef":{"name":"faults"}}`
	vfIPAM    = `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"VfConfig","ipam":{"type":"` + ipamPlugin + `"}}`
)

// defineNetwork makes a NetworkAttachmentDefinition in the tests' namespace.
func (b *testBed) defineNetwork(ctx context.Context) error {
	rest := b.client.CoreV1().RESTClient()
	err := rest.Post().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").SetHeader("Content-Type", "application/json").Body([]byte(networkAPI)).Do(ctx).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("define the API of NetworkAttachmentDefinitions: %w", err)
	}
	b.madeNetworkAPI = err == nil
	err = nil
	served := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err = rest.Post().AbsPath("/apis/k8s.cni.cncf.io/v1/namespaces", b.namespace, "network-attachment-definitions").
			SetHeader("Content-Type", "application/json").Body([]byte(network)).Do(ctx).Error()
		return err == nil, nil
	})
	if served != nil {
		return fmt.Errorf("make a NetworkAttachmentDefinition: %w", errors.Join(served, err))
	}
	return nil
}

// removeNetworkAPI removes it again from a cluster that stays.
func (b *testBed) removeNetworkAPI(ctx context.Context) error {
	if !b.madeNetworkAPI {
		return nil
	}
	err := b.client.CoreV1().RESTClient().Delete().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/network-attachment-definitions.k8s.cni.cncf.io").Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return errors.Join(errors.New("remove the API of NetworkAttachmentDefinitions"), err)
	}
	return nil
}
