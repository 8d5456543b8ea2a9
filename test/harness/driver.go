package harness

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// Names of the driver as the plain manifests install it.
const (
	DriverName  = "eks-hybrid-dra"
	DeviceClass = "gpu.eks-hybrid-dra"
	Namespace   = "eks-hybrid-dra"
	// Plugin is the name of the DaemonSet and of its service account.
	Plugin = "eks-hybrid-dra-kubelet-plugin"
	// PluginContainer is the container of the DaemonSet's pods.
	PluginContainer = "kubelet-plugin"

	pluginPods = "app.kubernetes.io/name=eks-hybrid-dra,app.kubernetes.io/component=kubelet-plugin"
)

// InstallDriver applies a kustomization that has the plain manifests in it, and
// returns when the driver is ready on every node it belongs on. Where it was
// installed before, its pods are replaced, since the image may be a new one of
// the same name.
func (c *Cluster) InstallDriver(ctx context.Context, kustomization string) error {
	return c.Steps.Do("Installing the driver from "+kustomization, func() error {
		_, err := c.Client.AppsV1().DaemonSets(Namespace).Get(ctx, Plugin, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("looking for an installed driver: %w", err)
		}
		installed := err == nil
		if err := c.ApplyKustomization(ctx, kustomization); err != nil {
			return err
		}
		if installed {
			if _, err := c.Kubectl(ctx, "rollout", "restart", "-n", Namespace, "daemonset/"+Plugin); err != nil {
				return err
			}
		}
		return c.WaitDriver(ctx)
	})
}

// WaitDriver returns when the driver is ready on every node it belongs on, and
// on at least one.
func (c *Cluster) WaitDriver(ctx context.Context) error {
	return c.WaitDaemonSet(ctx, Namespace, Plugin)
}

// WaitDaemonSet returns when a DaemonSet is ready on every node it belongs on,
// and on at least one.
func (c *Cluster) WaitDaemonSet(ctx context.Context, namespace, name string) error {
	sets := cache.NewFilteredListWatchFromClient(c.Client.AppsV1().RESTClient(), "daemonsets", namespace, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	})
	var last appsv1.DaemonSetStatus
	err := until(ctx, sets, &appsv1.DaemonSet{}, func(set *appsv1.DaemonSet, gone bool) (bool, error) {
		if gone {
			return false, errors.New("it was deleted")
		}
		last = set.Status
		desired := last.DesiredNumberScheduled
		return last.ObservedGeneration == set.Generation && desired > 0 &&
			last.UpdatedNumberScheduled == desired && last.NumberAvailable == desired, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for DaemonSet %s/%s: %w; %d nodes want it, it is new on %d and available on %d",
			namespace, name, err, last.DesiredNumberScheduled, last.UpdatedNumberScheduled, last.NumberAvailable)
	}
	return nil
}

// PluginPods returns the driver's pods, whatever their state.
func (c *Cluster) PluginPods(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := c.Client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: pluginPods})
	if err != nil {
		return nil, fmt.Errorf("listing the driver's pods: %w", err)
	}
	return pods.Items, nil
}

// PluginPod returns the driver's one running pod.
func (c *Cluster) PluginPod(ctx context.Context) (*corev1.Pod, error) {
	pods, err := c.PluginPods(ctx)
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		if pod.DeletionTimestamp == nil && podCondition(&pod, corev1.PodReady) == corev1.ConditionTrue {
			return &pod, nil
		}
	}
	return nil, fmt.Errorf("none of the %d pods of the driver in namespace %s is ready", len(pods), Namespace)
}

// WaitPluginPod returns when a pod of the driver other than the old one is
// ready, and the old one is gone.
func (c *Cluster) WaitPluginPod(ctx context.Context, old types.UID) error {
	pods := cache.NewFilteredListWatchFromClient(c.Client.CoreV1().RESTClient(), "pods", Namespace, func(o *metav1.ListOptions) {
		o.LabelSelector = pluginPods
	})
	ready := map[types.UID]bool{}
	err := until(ctx, pods, &corev1.Pod{}, func(pod *corev1.Pod, gone bool) (bool, error) {
		if ready[pod.UID] = podCondition(pod, corev1.PodReady) == corev1.ConditionTrue; gone {
			delete(ready, pod.UID)
		}
		_, oldThere := ready[old]
		return !oldThere && slices.Contains(slices.Collect(maps.Values(ready)), true), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for another pod of the driver than %s: %w; pods and whether they are ready: %v", old, err, ready)
	}
	return nil
}

// Devices returns the driver's GPUs, in the order in which the scheduler tries
// them.
func (c *Cluster) Devices(ctx context.Context) ([]resourceapi.Device, error) {
	published, err := c.Slices(ctx)
	if err != nil {
		return nil, err
	}
	var devices []resourceapi.Device
	for _, slice := range published {
		devices = append(devices, gpusOf(slice)...)
	}
	return devices, nil
}

// Slices returns the driver's ResourceSlices, ordered by name.
func (c *Cluster) Slices(ctx context.Context) ([]resourceapi.ResourceSlice, error) {
	list, err := c.Client.ResourceV1().ResourceSlices().List(ctx, driverSlices())
	if err != nil {
		return nil, fmt.Errorf("listing the driver's ResourceSlices: %w", err)
	}
	return list.Items, nil
}

// WaitDevices returns the driver's GPUs as soon as there are as many as asked
// for. Devices of other kinds that it may publish do not count.
func (c *Cluster) WaitDevices(ctx context.Context, count int) ([]resourceapi.Device, error) {
	watched := cache.NewFilteredListWatchFromClient(c.Client.ResourceV1().RESTClient(), "resourceslices", metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.FieldSelector = driverSlices().FieldSelector
	})
	published := map[string]int{}
	err := until(ctx, watched, &resourceapi.ResourceSlice{}, func(slice *resourceapi.ResourceSlice, gone bool) (bool, error) {
		if published[slice.Name] = len(gpusOf(*slice)); gone {
			delete(published, slice.Name)
		}
		total := 0
		for _, n := range published {
			total += n
		}
		return total == count, nil
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for %d GPUs of %s: %w; slices and their GPUs: %v", count, DriverName, err, published)
	}
	return c.Devices(ctx)
}

// gpusOf returns the slice's devices of type gpu.
func gpusOf(slice resourceapi.ResourceSlice) []resourceapi.Device {
	var gpus []resourceapi.Device
	for _, device := range slice.Spec.Devices {
		if ptr.Deref(device.Attributes["type"].StringValue, "") == "gpu" {
			gpus = append(gpus, device)
		}
	}
	return gpus
}

func driverSlices() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(resourceapi.ResourceSliceSelectorDriver, DriverName).String()}
}
