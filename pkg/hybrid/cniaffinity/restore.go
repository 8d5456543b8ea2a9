package cniaffinity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"
)

// page is how many DaemonSets are read at a time.
const page = 200

// Restore gives all objects that a keeper has changed back what they had, and
// returns which those were. No keeper may run meanwhile. It can be repeated, and goes
// on after an error with what is left; the errors are joined. It needs to list and
// patch DaemonSets in all namespaces, and to get and patch the Installation of
// Calico's operator where there is one.
func Restore(ctx context.Context, client dynamic.Interface) ([]string, error) {
	var (
		restored []string
		errs     []error
	)
	one := func(k kind, object *unstructured.Unstructured) {
		if _, ok := object.GetAnnotations()[Annotation]; !ok {
			return
		}
		name := object.GetKind() + " " + objectName(object)
		if err := restoreLatest(ctx, client, k, object); err != nil {
			errs = append(errs, fmt.Errorf("give %s back its node affinity: %w", name, err))
			return
		}
		restored = append(restored, name)
	}
	options := metav1.ListOptions{Limit: page}
	for {
		sets, err := client.Resource(daemonSets().resource).List(ctx, options)
		if err != nil {
			errs = append(errs, fmt.Errorf("look for DaemonSets that were changed: %w", err))
			break
		}
		for i := range sets.Items {
			one(daemonSets(), &sets.Items[i])
		}
		if options.Continue = sets.GetContinue(); options.Continue == "" {
			break
		}
	}
	installation, err := client.Resource(installations().resource).Get(ctx, installationName, metav1.GetOptions{})
	switch {
	case err == nil:
		one(installations(), installation)
	case !apierrors.IsNotFound(err): // nor is one found where Calico's operator is not
		errs = append(errs, fmt.Errorf("read the %s %s of Calico's operator: %w", installationKind, installationName, err))
	}
	return restored, errors.Join(errs...)
}

// restoreLatest restores an object, and reads it again as long as somebody else
// writes it at the same time.
func restoreLatest(ctx context.Context, client dynamic.Interface, k kind, object *unstructured.Unstructured) error {
	resource := client.Resource(k.resource).Namespace(object.GetNamespace())
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		latest, err := resource.Get(ctx, object.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		s, err := k.read(latest)
		if err != nil {
			return err
		}
		_, err = restore(ctx, client, s)
		return err
	})
}

// restore gives an object back what it had, and tells whether it has written that.
// The last write gives up what this package owns of the object's fields: otherwise
// whoever applies it next on the server's side with another affinity would get a
// conflict with a program that is gone.
func restore(ctx context.Context, client dynamic.Interface, s *state) (written bool, err error) {
	if c := release(s); c != nil {
		if err := write(ctx, client, s, c); err != nil {
			return false, err
		}
		written = true
	}
	return written, giveUp(ctx, client, s.kind, s.object)
}

// giveUp takes this package out of those who own fields of an object.
func giveUp(ctx context.Context, client dynamic.Interface, k kind, object *unstructured.Unstructured) error {
	before := object.GetManagedFields()
	fields := slices.DeleteFunc(slices.Clone(before), func(f metav1.ManagedFieldsEntry) bool { return f.Manager == Manager })
	if len(fields) == len(before) || len(fields) == 0 {
		return nil
	}
	body := map[string]any{"metadata": map[string]any{"resourceVersion": object.GetResourceVersion(), "managedFields": fields}}
	patch, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = client.Resource(k.resource).Namespace(object.GetNamespace()).
		Patch(ctx, object.GetName(), types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager})
	if err != nil {
		return fmt.Errorf("give up the fields of %s %s: %w", object.GetKind(), objectName(object), err)
	}
	return nil
}
