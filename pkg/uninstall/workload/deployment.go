package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// Deployment is one that is to be stopped.
type Deployment struct {
	Client          kubernetes.Interface
	Namespace, Name string
}

// Stop has all pods ended. It is not found if there is no such Deployment.
// Repeating it is fine.
func (d Deployment) Stop(ctx context.Context) (found bool, err error) {
	deployment, err := d.get(ctx)
	if err != nil || deployment == nil {
		return false, err
	}
	replicas := ptr.Deref(deployment.Spec.Replicas, 1)
	if replicas == 0 {
		return true, nil
	}
	return true, d.change(ctx, deployment, 0, strconv.Itoa(int(replicas)))
}

// Restore has as many pods run as before Stop. A Deployment that was not
// stopped, or was applied anew since, or is gone, is fine.
func (d Deployment) Restore(ctx context.Context) error {
	deployment, err := d.get(ctx)
	if err != nil || deployment == nil || ptr.Deref(deployment.Spec.Replicas, 1) != 0 || deployment.Annotations[Before] == "" {
		return err
	}
	replicas, err := strconv.ParseInt(deployment.Annotations[Before], 10, 32)
	if err != nil {
		return fmt.Errorf("put Deployment %s/%s back: its annotation %s does not say what it was: %w: apply it anew, by helm upgrade for example", d.Namespace, d.Name, Before, err)
	}
	return d.change(ctx, deployment, int32(replicas), "")
}

// Stopped tells whether no pod is left.
func (d Deployment) Stopped(ctx context.Context) (bool, error) {
	deployment, err := d.get(ctx)
	if err != nil || deployment == nil {
		return err == nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(deployment.Spec.Selector)
	if err != nil {
		return false, fmt.Errorf("selector of Deployment %s/%s: %w", d.Namespace, d.Name, err)
	}
	pods, err := d.Client.CoreV1().Pods(d.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return false, fmt.Errorf("list the pods of Deployment %s/%s: %w", d.Namespace, d.Name, err)
	}
	return deployment.Status.ObservedGeneration >= deployment.Generation && len(pods.Items) == 0, nil
}

func (d Deployment) get(ctx context.Context) (*appsv1.Deployment, error) {
	deployment, err := d.Client.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at Deployment %s/%s: %w", d.Namespace, d.Name, err)
	}
	return deployment, nil
}

func (d Deployment) change(ctx context.Context, deployment *appsv1.Deployment, replicas int32, before string) error {
	manager := applier(deployment.ManagedFields)
	var err error
	if manager == "" {
		err = d.patch(ctx, replicas, before)
	} else {
		err = d.apply(ctx, deployment, manager, replicas, before)
	}
	if err != nil {
		return fmt.Errorf("change how many pods Deployment %s/%s has: %w", d.Namespace, d.Name, err)
	}
	return nil
}

func (d Deployment) patch(ctx context.Context, replicas int32, before string) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{Before: orNull(before)}},
		"spec":     map[string]any{"replicas": replicas},
	})
	if err != nil {
		return err
	}
	_, err = d.Client.AppsV1().Deployments(d.Namespace).Patch(ctx, d.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (d Deployment) apply(ctx context.Context, deployment *appsv1.Deployment, manager string, replicas int32, before string) error {
	config, err := applyappsv1.ExtractDeployment(deployment, manager)
	if err != nil {
		return err
	}
	if config.Spec == nil {
		return errors.New("it was not applied as a whole")
	}
	config.Spec.Replicas = &replicas
	if delete(config.Annotations, Before); before != "" {
		config.WithAnnotations(map[string]string{Before: before})
	}
	_, err = d.Client.AppsV1().Deployments(d.Namespace).Apply(ctx, config, metav1.ApplyOptions{FieldManager: manager, Force: true})
	return err
}
