package uninstall

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// removeMade removes the leader's lease, and plans of gangs that were never
// finished. Their claims have no devices any more.
func (u *uninstaller) removeMade(ctx context.Context) error {
	var errs []error
	if u.Lease != "" {
		err := u.Client.CoordinationV1().Leases(u.Namespace).Delete(ctx, u.Lease, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete Lease %s/%s: %w", u.Namespace, u.Lease, err))
		}
	}
	if u.PlanLabel == "" {
		return errors.Join(errs...)
	}
	plans, err := u.Client.CoreV1().ConfigMaps(u.Namespace).List(ctx, metav1.ListOptions{LabelSelector: u.PlanLabel})
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("look for plans of gangs: %w", err))...)
	}
	for _, plan := range plans.Items {
		err := u.Client.CoreV1().ConfigMaps(u.Namespace).Delete(ctx, plan.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete the plan ConfigMap %s/%s: %w", u.Namespace, plan.Name, err))
		}
	}
	return errors.Join(errs...)
}
