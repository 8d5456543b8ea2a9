package pods

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

const (
	poll = 20 * time.Millisecond
	// patience is how long one step may take.
	patience = 2 * time.Minute
)

// NewNamespace makes a namespace in which pods can be created.
func NewNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	err = wait.PollUntilContextTimeout(ctx, poll, patience, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, IgnoreNotFound(err)
	})
	if err != nil {
		return fmt.Errorf("wait for the service account of namespace %s: %w", name, err)
	}
	return nil
}

// DeleteNamespace deletes a namespace and waits until it is gone. None is fine.
func DeleteNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	if err := IgnoreNotFound(client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})); err != nil {
		return fmt.Errorf("delete namespace %s: %w", name, err)
	}
	// Claims that look in use are let go as soon as nobody protects them.
	err := wait.PollUntilContextTimeout(ctx, poll, patience, true, func(ctx context.Context) (bool, error) {
		if err := releaseClaims(ctx, client, name); err != nil {
			return false, err
		}
		_, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), IgnoreNotFound(err)
	})
	if err != nil {
		return fmt.Errorf("wait for the end of namespace %s: %w", name, err)
	}
	return nil
}

// IgnoreNotFound returns nil for what the API server does not have.
func IgnoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
