package nodelabels

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/klog/v2"
)

// apply makes the labels the ones that are owned here. Those that somebody else
// has set to another value stay as they are; they are returned with what the API
// server says of them.
func (k *Keeper) apply(ctx context.Context, labels map[string]string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	labels = maps.Clone(labels)
	conflicts := map[string]string{}
	for {
		node := corev1ac.Node(k.options.Node).WithLabels(labels)
		_, err := k.options.Client.CoreV1().Nodes().Apply(ctx, node, metav1.ApplyOptions{FieldManager: k.options.Manager})
		if err == nil {
			klog.FromContext(ctx).Info("Labelled the node", "labels", labels)
			return conflicts, nil
		}
		found := conflictsIn(err, labels)
		if len(found) == 0 {
			return nil, k.applyError(err)
		}
		maps.Copy(conflicts, found)
		for key := range found {
			delete(labels, key)
		}
	}
}

func (k *Keeper) applyError(err error) error {
	what := fmt.Sprintf("set the labels %s and %s of node %s", k.options.Config.GPU, k.options.Config.GPUCount, k.options.Node)
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s: %w: grant it with nodeConfig.nodeLabels in the chart's values; if their keys were changed, switch the labels off before, under the old keys", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// conflictsIn returns which of the labels belong to others, and what the API
// server says of each.
func conflictsIn(err error, labels map[string]string) map[string]string {
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	found := map[string]string{}
	for _, cause := range status.Status().Details.Causes {
		key := strings.TrimPrefix(cause.Field, ".metadata.labels.")
		if _, ours := labels[key]; ours && cause.Type == metav1.CauseTypeFieldManagerConflict {
			found[key] = cause.Message
		}
	}
	return found
}

// conflictError says which labels somebody else has set.
type conflictError struct {
	node   string
	labels map[string]string
}

func (e *conflictError) Error() string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(e.labels)) {
		all = append(all, fmt.Sprintf("%s (%s)", key, e.labels[key]))
	}
	return fmt.Sprintf("labels of node %s were set to other values by somebody else and stay so: %s: remove them there, as by \"kubectl label node %s %s-\", or give the plugin's other keys in nodeLabels of its configuration",
		e.node, strings.Join(all, ", "), e.node, slices.Sorted(maps.Keys(e.labels))[0])
}

// owned returns the labels of the node that the manager has applied.
func owned(node *corev1.Node, manager string) map[string]string {
	labels := map[string]string{}
	for _, entry := range node.ManagedFields {
		if entry.Manager != manager || entry.Operation != metav1.ManagedFieldsOperationApply || entry.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Metadata struct {
				Labels map[string]json.RawMessage `json:"f:labels"`
			} `json:"f:metadata"`
		}
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil {
			continue // the API server wrote it, and nothing depends on it
		}
		for field := range fields.Metadata.Labels {
			if key, isField := strings.CutPrefix(field, "f:"); isField {
				if value, there := node.Labels[key]; there {
					labels[key] = value
				}
			}
		}
	}
	return labels
}
