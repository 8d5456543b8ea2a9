package gangplan

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Store keeps plans as ConfigMaps of one namespace.
type Store struct {
	client    kubernetes.Interface
	namespace string
}

// NewStore returns the store in the controller's own namespace.
func NewStore(client kubernetes.Interface, namespace string) *Store {
	return &Store{client: client, namespace: namespace}
}

// Unreadable is a plan that is of no use.
type Unreadable struct {
	// ConfigMap is where it was, without its content.
	ConfigMap *corev1.ConfigMap
	Err       error
}

// List returns all plans, as the API has them now. Those that cannot be read
// are returned beside them.
func (s *Store) List(ctx context.Context) ([]Plan, []Unreadable, error) {
	objects, err := s.client.CoreV1().ConfigMaps(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: Label + "=true"})
	if err != nil {
		return nil, nil, fmt.Errorf("list the plans of gangs in namespace %s: %w", s.namespace, err)
	}
	var plans []Plan
	var unreadable []Unreadable
	for i := range objects.Items {
		object := &objects.Items[i]
		plan, err := decode(object)
		if err != nil {
			unreadable = append(unreadable, Unreadable{ConfigMap: &corev1.ConfigMap{ObjectMeta: object.ObjectMeta}, Err: err})
			continue
		}
		plans = append(plans, plan)
	}
	return plans, unreadable, nil
}

// Save writes a plan, over an older one of the same gang.
func (s *Store) Save(ctx context.Context, plan Plan) error {
	object, err := encode(s.namespace, plan)
	if err != nil {
		return err
	}
	maps := s.client.CoreV1().ConfigMaps(s.namespace)
	_, err = maps.Create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = maps.Update(ctx, object, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("store the plan of gang %s in ConfigMap %s/%s: %w", plan.Gang, s.namespace, object.Name, err)
	}
	return nil
}

// Delete removes the plan of a gang. One that is gone already is no error.
func (s *Store) Delete(ctx context.Context, gang types.NamespacedName) error {
	err := s.client.CoreV1().ConfigMaps(s.namespace).Delete(ctx, name(gang), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove the plan of gang %s, ConfigMap %s/%s: %w", gang, s.namespace, name(gang), err)
	}
	return nil
}

// Discard removes a plan that cannot be read.
func (s *Store) Discard(ctx context.Context, u Unreadable) error {
	// What is there now may be another one.
	only := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &u.ConfigMap.UID}}
	err := s.client.CoreV1().ConfigMaps(s.namespace).Delete(ctx, u.ConfigMap.Name, only)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove the unreadable plan in ConfigMap %s/%s: %w", s.namespace, u.ConfigMap.Name, err)
	}
	return nil
}
