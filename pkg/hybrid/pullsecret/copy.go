package pullsecret

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Label is on each copy, with the value "true".
const Label = "eks-hybrid-dra/pull-secret-copy"

// Annotation is on each copy, and says of which Secret it is one:
// <namespace>/<name>.
const Annotation = "eks-hybrid-dra/copied-from"

// isCopy tells whether a Secret is a copy of the one of the same name in a
// namespace.
func isCopy(secret *corev1.Secret, source string) bool {
	return secret.Labels[Label] == "true" && secret.Annotations[Annotation] == source+"/"+secret.Name
}

// usable says what is wrong with the Secret that is to be copied.
func usable(source *corev1.Secret, namespace, name string) error {
	switch {
	case source == nil:
		return fmt.Errorf("the Secret %s/%s is not there: make it with \"kubectl create secret docker-registry %s -n %s ...\"", namespace, name, name, namespace)
	case source.Type != corev1.SecretTypeDockerConfigJson:
		return fmt.Errorf("the Secret %s/%s has type %q, want %s: delete it and make it with \"kubectl create secret docker-registry\"", namespace, name, source.Type, corev1.SecretTypeDockerConfigJson)
	}
	return nil
}

// upToDate tells whether a copy has what the source has.
func upToDate(copied, source *corev1.Secret) bool {
	return equality.Semantic.DeepEqual(copied.Data, source.Data)
}

// make writes the first copy in a namespace.
func create(ctx context.Context, client kubernetes.Interface, namespace string, source *corev1.Secret) error {
	_, err := client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: source.Name,
			Labels:      map[string]string{Label: "true"},
			Annotations: map[string]string{Annotation: source.Namespace + "/" + source.Name},
		},
		Type: source.Type,
		Data: maps.Clone(source.Data),
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("copy Secret %s/%s to namespace %s: %w", source.Namespace, source.Name, namespace, err)
	}
	return nil
}

// update brings a copy up to date, unless it has changed since it was read.
func update(ctx context.Context, client kubernetes.Interface, copied, source *corev1.Secret) error {
	copied = copied.DeepCopy()
	copied.Data = maps.Clone(source.Data)
	if _, err := client.CoreV1().Secrets(copied.Namespace).Update(ctx, copied, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("bring the copy of Secret %s/%s in namespace %s up to date: %w", source.Namespace, source.Name, copied.Namespace, err)
	}
	return nil
}

// remove deletes a copy, unless it has changed since it was read.
func remove(ctx context.Context, client kubernetes.Interface, copied *corev1.Secret) error {
	err := client.CoreV1().Secrets(copied.Namespace).Delete(ctx, copied.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &copied.UID, ResourceVersion: &copied.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove the copied Secret %s/%s: %w", copied.Namespace, copied.Name, err)
	}
	return nil
}
