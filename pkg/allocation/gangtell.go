package allocation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// ConditionGangAllocated is the condition that pods have whose claim belongs to
// a gang that was not allocated in time. It is False, with reason TimedOut,
// until the gang is allocated, and then True.
const ConditionGangAllocated corev1.PodConditionType = "eks-hybrid-dra/GangAllocated"

// Reasons of the condition.
const (
	conditionTimedOut  = "TimedOut"
	conditionAllocated = "Allocated"
)

// gangTimedOut tells the users of a gang, once, that it waits for too long.
func (c *Controller) gangTimedOut(ctx context.Context, g gang, why string) error {
	message := fmt.Sprintf("Gang %s is not allocated %s after the first of its claims was made: %s; it holds no devices, and is allocated as soon as that is possible", g.name.Name, g.timeout, why)
	if inUse(g.have) {
		message = fmt.Sprintf("Gang %s is in use, but not all of it is allocated: %s", g.name.Name, why)
	}
	if err := c.gangCondition(ctx, g, corev1.ConditionFalse, conditionTimedOut, message); err != nil {
		return err
	}
	if !c.unfinished.tell(g.name) {
		return nil
	}
	// Other claims of the pods wait with it.
	beside := slices.DeleteFunc(c.together(g.want...).claims, func(claim *resourceapi.ResourceClaim) bool { return gangOf(claim) == g.name })
	for _, claim := range slices.Concat(g.members, beside) {
		if claim.Status.Allocation == nil {
			c.Metrics.Failed(claim, measure.ReasonGangTimedOut)
			c.warn(claim, ReasonGangTimedOut, "%s", message)
		}
	}
	return nil
}

// gangIsThere tells those who were told that a gang waits that it does no more.
func (c *Controller) gangIsThere(ctx context.Context, g gang) error {
	c.unfinished.forget(g.name)
	message := fmt.Sprintf("All %d claims of gang %s are allocated", g.size, g.name.Name)
	return c.gangCondition(ctx, g, corev1.ConditionTrue, conditionAllocated, message)
}

// gangCondition sets the condition on the pods of the gang. Only pods that
// have it are told that all is well.
func (c *Controller) gangCondition(ctx context.Context, g gang, status corev1.ConditionStatus, reason, message string) error {
	seen := map[types.UID]bool{}
	var errs []error
	for _, claim := range g.members {
		for _, pod := range c.Consumers.Of(claim).Pods {
			if seen[pod.UID] {
				continue
			}
			seen[pod.UID] = true
			had := conditionOf(pod)
			if had == status || had == "" && status == corev1.ConditionTrue {
				continue
			}
			errs = append(errs, c.patchCondition(ctx, pod, corev1.PodCondition{
				Type: ConditionGangAllocated, Status: status, Reason: reason, Message: message,
				LastTransitionTime: metav1.NewTime(c.Clock.Now().Truncate(time.Second)),
			}))
		}
	}
	return errors.Join(errs...)
}

func conditionOf(pod *corev1.Pod) corev1.ConditionStatus {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == ConditionGangAllocated {
			return condition.Status
		}
	}
	return ""
}

func (c *Controller) patchCondition(ctx context.Context, pod *corev1.Pod, condition corev1.PodCondition) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status":   map[string]any{"conditions": []corev1.PodCondition{condition}},
	})
	if err != nil {
		return fmt.Errorf("write the condition of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	_, err = c.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("set condition %s of pod %s/%s: %w", ConditionGangAllocated, pod.Namespace, pod.Name, err)
	}
	return nil
}
