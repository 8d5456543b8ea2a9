package apiclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
)

// askFor bounds a question.
const askFor = 5 * time.Second

// Serves asks the API server whether it serves a resource, such as
// "devicetaintrules". It may be upgraded at any time, or replaced by one that does
// not. An error means that there was no answer.
func Serves(ctx context.Context, client kubernetes.Interface, resource schema.GroupVersionResource) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	version := resource.GroupVersion().String()
	list, err := client.Discovery().ServerResourcesForGroupVersionWithContext(ctx, version)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask the API server whether it serves %s of %s: %w", resource.Resource, version, err)
	}
	return slices.ContainsFunc(list.APIResources, func(a metav1.APIResource) bool { return a.Name == resource.Resource }), nil
}

// WatchEnded tells whether an error is only that a watch has come to its end, as
// they all do: the next one begins where it was.
func WatchEnded(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || errors.Is(err, io.EOF)
}
