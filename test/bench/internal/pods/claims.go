package pods

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// releaseClaims takes away what keeps deleted claims from ending.
func releaseClaims(ctx context.Context, client kubernetes.Interface, namespace string) error {
	claims, err := client.ResourceV1().ResourceClaims(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the claims in %s: %w", namespace, err)
	}
	for i := range claims.Items {
		if claims.Items[i].DeletionTimestamp == nil {
			continue
		}
		if err := draclient.Deallocate(ctx, client, draclient.ClaimOf(&claims.Items[i])); err != nil {
			return err
		}
	}
	return nil
}

// waitNoClaims waits until Kubernetes has removed the claims of pods that are
// gone, so that this work does not fall into the next measurement.
func waitNoClaims(ctx context.Context, client kubernetes.Interface, namespace string) error {
	err := wait.PollUntilContextTimeout(ctx, poll, patience, true, func(ctx context.Context) (bool, error) {
		claims, err := client.ResourceV1().ResourceClaims(namespace).List(ctx, metav1.ListOptions{})
		return err == nil && len(claims.Items) == 0, err
	})
	if err != nil {
		return fmt.Errorf("wait for the end of the claims in %s: %w", namespace, err)
	}
	return nil
}
