package draclient

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
)

// Allocation is what a scheduler decides about a claim.
type Allocation struct {
	Namespace, Name string
	// Class is the name of a DeviceClass, which need not exist. Default
	// "none".
	Class string
	// Node is the node that the devices are on.
	Node string
	// Results are the allocated devices, one per request.
	Results []Result
	// Configs are opaque configurations of the claim, in the order in which
	// they take effect.
	Configs []Config
	// Pods are those that may use the claim. Kubernetes takes a claim back
	// from pods that do not exist, so they should: see [CreatePod].
	Pods []*corev1.Pod
}

// Result is one allocated device.
type Result struct {
	Driver, Pool, Device string
	// Request defaults to r0, r1, ... in the order of the results.
	Request string
	// AdminAccess needs a namespace that allows it.
	AdminAccess bool
}

// Config is an opaque configuration for some requests, or for all.
type Config struct {
	Driver   string
	Requests []string
	// JSON is the configuration.
	JSON string
}

// ClaimOf returns what kubelet tells a plugin about a claim.
func ClaimOf(claim *resourceapi.ResourceClaim) Claim {
	return Claim{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
}

// CreateAllocated makes a claim in the API server and allocates it. What the
// API server demands of an allocation, it checks.
func CreateAllocated(ctx context.Context, client kubernetes.Interface, a Allocation) (*resourceapi.ResourceClaim, error) {
	claims := client.ResourceV1().ResourceClaims(a.Namespace)
	claim, err := claims.Create(ctx, a.claim(), metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create claim %s/%s: %w", a.Namespace, a.Name, err)
	}
	claim.Status = a.status()
	claim, err = claims.UpdateStatus(ctx, claim, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("allocate claim %s/%s: %w", a.Namespace, a.Name, err)
	}
	return claim, nil
}

// Delete removes a claim from the API server at once, also while pods may use
// it. A claim that is gone already is fine.
func Delete(ctx context.Context, client kubernetes.Interface, claim Claim) error {
	if err := Deallocate(ctx, client, claim); err != nil {
		return err
	}
	err := client.ResourceV1().ResourceClaims(claim.Namespace).Delete(ctx, claim.Name, metav1.DeleteOptions{
		Preconditions: metav1.NewUIDPreconditions(string(claim.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete claim %s: %w", claim, err)
	}
	return nil
}

// Deallocate takes a claim's devices and pods away, as happens when its last
// pod ends. A claim that is gone already is fine.
func Deallocate(ctx context.Context, client kubernetes.Interface, claim Claim) error {
	claims := client.ResourceV1().ResourceClaims(claim.Namespace)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := claims.Get(ctx, claim.Name, metav1.GetOptions{})
		if err != nil || current.UID != claim.UID {
			return err
		}
		if len(current.Status.ReservedFor) > 0 || current.Status.Allocation != nil {
			current.Status = resourceapi.ResourceClaimStatus{}
			if current, err = claims.UpdateStatus(ctx, current, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		n := slices.Index(current.Finalizers, resourceapi.Finalizer)
		if n < 0 {
			return nil
		}
		current.Finalizers = slices.Delete(current.Finalizers, n, n+1)
		_, err = claims.Update(ctx, current, metav1.UpdateOptions{})
		return err
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deallocate claim %s: %w", claim, err)
	}
	return nil
}

// Allocate allocates a claim that exists, or allocates it anew, to what a
// says; its name and namespace are those of the claim.
func Allocate(ctx context.Context, client kubernetes.Interface, claim Claim, a Allocation) error {
	claims := client.ResourceV1().ResourceClaims(claim.Namespace)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := claims.Get(ctx, claim.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if current.UID != claim.UID {
			return errors.New("it was replaced by another of its name")
		}
		current.Status = a.status()
		_, err = claims.UpdateStatus(ctx, current, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("allocate claim %s: %w", claim, err)
	}
	return nil
}

// claim is the claim as a user writes it, with the finalizer that a scheduler
// adds before it allocates.
func (a *Allocation) claim() *resourceapi.ResourceClaim {
	class := a.Class
	if class == "" {
		class = "none"
	}
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: a.Namespace, Name: a.Name, Finalizers: []string{resourceapi.Finalizer},
	}}
	for n, r := range a.Results {
		exact := &resourceapi.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1}
		if r.AdminAccess {
			exact.AdminAccess = &r.AdminAccess
		}
		claim.Spec.Devices.Requests = append(claim.Spec.Devices.Requests, resourceapi.DeviceRequest{Name: r.request(n), Exactly: exact})
	}
	for _, c := range a.Configs {
		claim.Spec.Devices.Config = append(claim.Spec.Devices.Config, resourceapi.DeviceClaimConfiguration{
			Requests: c.Requests, DeviceConfiguration: c.opaque(),
		})
	}
	return claim
}

func (a *Allocation) status() resourceapi.ResourceClaimStatus {
	allocation := &resourceapi.AllocationResult{NodeSelector: onNode(a.Node)}
	for n, r := range a.Results {
		result := resourceapi.DeviceRequestAllocationResult{Request: r.request(n), Driver: r.Driver, Pool: r.Pool, Device: r.Device}
		if r.AdminAccess {
			result.AdminAccess = &r.AdminAccess
		}
		allocation.Devices.Results = append(allocation.Devices.Results, result)
	}
	for _, c := range a.Configs {
		allocation.Devices.Config = append(allocation.Devices.Config, resourceapi.DeviceAllocationConfiguration{
			Source: resourceapi.AllocationConfigSourceClaim, Requests: c.Requests, DeviceConfiguration: c.opaque(),
		})
	}
	status := resourceapi.ResourceClaimStatus{Allocation: allocation}
	for _, pod := range a.Pods {
		status.ReservedFor = append(status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
	}
	return status
}

func (r Result) request(n int) string {
	if r.Request != "" {
		return r.Request
	}
	return fmt.Sprintf("r%d", n)
}

func (c Config) opaque() resourceapi.DeviceConfiguration {
	opaque := &resourceapi.OpaqueDeviceConfiguration{Driver: c.Driver}
	opaque.Parameters.Raw = []byte(c.JSON)
	return resourceapi.DeviceConfiguration{Opaque: opaque}
}

func onNode(name string) *corev1.NodeSelector {
	return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{
			Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{name},
		}},
	}}}
}

// CreateNode makes a node that no kubelet runs. Pods that run elsewhere are
// kept from it by a taint.
func CreateNode(ctx context.Context, client kubernetes.Interface, name string) (*corev1.Node, error) {
	node, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.NodeSpec{Unschedulable: true},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create node %s: %w", name, err)
	}
	return node, nil
}

// CreatePod makes a pod on a node that no kubelet runs, so that it exists and
// nothing comes of it. It stays when Kubernetes finds the node unreachable.
func CreatePod(ctx context.Context, client kubernetes.Interface, pod types.NamespacedName, node string) (*corev1.Pod, error) {
	created, err := client.CoreV1().Pods(pod.Namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		Spec: corev1.PodSpec{
			NodeName:    node,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "none", Image: "localhost/none:none"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create pod %s: %w", pod, err)
	}
	return created, nil
}
