package pullsecret

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// page is how many namespaces are read at a time.
const page = 500

// RemoveAll removes all copies of the Secrets that the configuration names, now or
// formerly, in a namespace, and returns where there were some, as
// <namespace>/<name>. No copier may run meanwhile. It can be repeated, and goes on
// after an error with what is left; the errors are joined. It needs to list
// namespaces, and to get and delete Secrets of those names.
func RemoveAll(ctx context.Context, client kubernetes.Interface, source string, config *v1alpha1.PullSecretConfig) ([]string, error) {
	var (
		removed []string
		errs    []error
	)
	options := metav1.ListOptions{Limit: page}
	for {
		namespaces, err := client.CoreV1().Namespaces().List(ctx, options)
		if err != nil {
			return removed, errors.Join(append(errs, fmt.Errorf("look for namespaces with copied pull secrets: %w", err))...)
		}
		for _, namespace := range namespaces.Items {
			for _, name := range namesOf(config) {
				if namespace.Name == source {
					continue
				}
				done, err := removeOne(ctx, client, namespace.Name, name, source)
				if done {
					removed = append(removed, namespace.Name+"/"+name)
				}
				errs = append(errs, err)
			}
		}
		if options.Continue = namespaces.Continue; options.Continue == "" {
			return removed, errors.Join(errs...)
		}
	}
}

func removeOne(ctx context.Context, client kubernetes.Interface, namespace, name, source string) (bool, error) {
	done := false
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		secret, err := client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look for a copied Secret %s/%s: %w", namespace, name, err)
		}
		if !isCopy(secret, source) {
			return nil
		}
		if err := remove(ctx, client, secret); err != nil {
			return err
		}
		done = true
		return nil
	})
	return done, err
}
