package cniaffinity

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kind is a kind of object that says where the pods of a network plugin run.
type kind struct {
	resource schema.GroupVersionResource
	// podSpec is the path to the specification of the pods.
	podSpec []string
}

func daemonSets() kind {
	return kind{
		resource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"},
		podSpec:  []string{"spec", "template", "spec"},
	}
}

// The object that Calico's operator makes calico-node of. The operator reads only
// this one: https://docs.tigera.io/calico/latest/reference/installation/api.
const (
	installationGroup = "operator.tigera.io"
	installationKind  = "Installation"
	installationName  = "default"
)

func installations() kind {
	return kind{
		resource: schema.GroupVersionResource{Group: installationGroup, Version: "v1", Resource: "installations"},
		podSpec:  []string{"spec", "calicoNodeDaemonSet", "spec", "template", "spec"},
	}
}

// ofInstallation tells whether Calico's operator makes the DaemonSet.
func ofInstallation(owner *metav1.OwnerReference) bool {
	gv, err := schema.ParseGroupVersion(owner.APIVersion)
	return err == nil && gv.Group == installationGroup && owner.Kind == installationKind && owner.Name == installationName
}

// affinity is the path from the specification of pods to their required node
// affinity.
func affinity() []string {
	return []string{"affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"}
}

func (k kind) selectorPath() []string {
	return append(append([]string(nil), k.podSpec...), affinity()...)
}

// state is what an object says about where its pods run.
type state struct {
	kind   kind
	object *unstructured.Unstructured
	// required is nil if there is none.
	required     *corev1.NodeSelector
	nodeSelector map[string]string
	// present is how many elements of the path to required there are.
	present int
	record  *saved
}

// read returns the state of an object, which it never changes.
func (k kind) read(object *unstructured.Unstructured) (*state, error) {
	s := &state{kind: k, object: object}
	path := k.selectorPath()
	var found any = object.Object
	for _, element := range path {
		parent, ok := found.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%v: want an object, got %T", path[:s.present], found)
		}
		next, ok := parent[element]
		if !ok || next == nil {
			found = nil
			break
		}
		found = next
		s.present++
	}
	if s.present == len(path) {
		content, ok := found.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%v: want an object, got %T", path, found)
		}
		s.required = &corev1.NodeSelector{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, s.required); err != nil {
			return nil, fmt.Errorf("%v: %w", path, err)
		}
	}
	var err error
	if s.nodeSelector, _, err = unstructured.NestedStringMap(object.Object, append(append([]string(nil), k.podSpec...), "nodeSelector")...); err != nil {
		return nil, err
	}
	s.record, err = parseRecord(object.GetAnnotations())
	return s, err
}

// patch returns a JSON merge patch that changes the selector and the annotation,
// and nothing else; it fails if the object has changed since it was read. A nil
// selector goes away, and with it what is empty then of its path from the element
// number present on.
func (s *state) patch(required *corev1.NodeSelector, r *saved, present int) ([]byte, error) {
	body := map[string]any{}
	set := func(value any, path ...string) {
		at := body
		for _, element := range path[:len(path)-1] {
			next, ok := at[element].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[element] = next
			}
			at = next
		}
		at[path[len(path)-1]] = value
	}
	set(s.object.GetResourceVersion(), "metadata", "resourceVersion")
	if r != nil {
		set(r.String(), "metadata", "annotations", Annotation)
	} else if _, ok := s.object.GetAnnotations()[Annotation]; ok {
		set(nil, "metadata", "annotations", Annotation)
	}
	path := s.kind.selectorPath()
	switch {
	case required != nil:
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(required)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", path, err)
		}
		set(content, path...)
	case s.required != nil:
		set(nil, path[:s.emptyFrom(present)]...)
	}
	return json.Marshal(body)
}

// emptyFrom returns how long the shortest path is, longer than present, at which
// there is nothing but the selector.
func (s *state) emptyFrom(present int) int {
	path := s.kind.selectorPath()
	shortest := len(path)
	for n := len(path) - 1; n > present; n-- {
		parent, ok, err := unstructured.NestedMap(s.object.Object, path[:n]...)
		if err != nil || !ok || len(parent) != 1 {
			break
		}
		shortest = n
	}
	return shortest
}
