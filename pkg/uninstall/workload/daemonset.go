package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	"k8s.io/client-go/kubernetes"
)

// Before is the annotation in which is kept what a workload was.
const Before = "eks-hybrid-dra/before-uninstall"

// DaemonSet is one whose pods are to run something else.
type DaemonSet struct {
	Client          kubernetes.Interface
	Namespace, Name string
	// Container is the container of its pods that is changed.
	Container string
	// Args returns what the container is to run, from what it runs. The first
	// of them tells that it does.
	Args func(usual []string) []string
}

// usual is what is remembered of a DaemonSet.
type usual struct {
	Args     []string                       `json:"args"`
	Strategy appsv1.DaemonSetUpdateStrategy `json:"updateStrategy"`
}

// Switch has the pods of all nodes replaced at once by such that run the other
// thing. It is not found if there is no such DaemonSet. Repeating it is fine.
func (d DaemonSet) Switch(ctx context.Context) (found bool, err error) {
	set, err := d.get(ctx)
	if err != nil || set == nil {
		return false, err
	}
	args, err := d.args(set)
	if err != nil {
		return true, err
	}
	if d.switched(args) {
		return true, nil
	}
	was, err := json.Marshal(usual{Args: args, Strategy: set.Spec.UpdateStrategy})
	if err != nil {
		return true, fmt.Errorf("encode what DaemonSet %s/%s was: %w", d.Namespace, d.Name, err)
	}
	all, none := intstr.FromString("100%"), intstr.FromInt32(0)
	now := usual{Args: d.Args(args), Strategy: appsv1.DaemonSetUpdateStrategy{
		Type:          appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &all, MaxSurge: &none},
	}}
	return true, d.change(ctx, set, now, string(was))
}

// Restore has the pods do again what they did before Switch. A DaemonSet that
// was not changed, or was applied anew since, or is gone, is fine.
func (d DaemonSet) Restore(ctx context.Context) error {
	set, err := d.get(ctx)
	if err != nil || set == nil {
		return err
	}
	args, err := d.args(set)
	if err != nil || !d.switched(args) || set.Annotations[Before] == "" { // or was applied so
		return err
	}
	var was usual
	if err := json.Unmarshal([]byte(set.Annotations[Before]), &was); err != nil {
		return fmt.Errorf("put DaemonSet %s/%s back: its annotation %s does not say what it was: %w: apply it anew, by helm upgrade for example", d.Namespace, d.Name, Before, err)
	}
	return d.change(ctx, set, was, "")
}

func (d DaemonSet) get(ctx context.Context) (*appsv1.DaemonSet, error) {
	set, err := d.Client.AppsV1().DaemonSets(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at DaemonSet %s/%s: %w", d.Namespace, d.Name, err)
	}
	return set, nil
}

func (d DaemonSet) args(set *appsv1.DaemonSet) ([]string, error) {
	for _, c := range set.Spec.Template.Spec.Containers {
		if c.Name == d.Container {
			return c.Args, nil
		}
	}
	return nil, fmt.Errorf("DaemonSet %s/%s has no container %q", d.Namespace, d.Name, d.Container)
}

// switched tells whether a container with these arguments runs the other thing.
func (d DaemonSet) switched(args []string) bool {
	return len(args) > 0 && args[0] == d.Args(nil)[0]
}

// change writes arguments and strategy. The annotation goes if it is empty.
func (d DaemonSet) change(ctx context.Context, set *appsv1.DaemonSet, to usual, before string) error {
	manager := applier(set.ManagedFields)
	var err error
	if manager == "" {
		err = d.patch(ctx, to, before)
	} else {
		err = d.apply(ctx, set, manager, to, before)
	}
	if err != nil {
		return fmt.Errorf("change what DaemonSet %s/%s runs: %w", d.Namespace, d.Name, err)
	}
	return nil
}

func (d DaemonSet) patch(ctx context.Context, to usual, before string) error {
	strategy := map[string]any{"type": to.Strategy.Type, "rollingUpdate": to.Strategy.RollingUpdate}
	if to.Strategy.RollingUpdate == nil {
		strategy["rollingUpdate"] = nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{Before: orNull(before)}},
		"spec": map[string]any{
			"updateStrategy": strategy,
			"template": map[string]any{"spec": map[string]any{
				"containers": []any{map[string]any{"name": d.Container, "args": to.Args}},
			}},
		},
	})
	if err != nil {
		return err
	}
	_, err = d.Client.AppsV1().DaemonSets(d.Namespace).Patch(ctx, d.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (d DaemonSet) apply(ctx context.Context, set *appsv1.DaemonSet, manager string, to usual, before string) error {
	config, err := applyappsv1.ExtractDaemonSet(set, manager)
	if err != nil {
		return err
	}
	if config.Spec == nil || config.Spec.Template == nil || config.Spec.Template.Spec == nil {
		return errors.New("it was not applied as a whole")
	}
	at := slices.IndexFunc(config.Spec.Template.Spec.Containers, func(c applyContainer) bool { return c.Name != nil && *c.Name == d.Container })
	if at < 0 {
		return fmt.Errorf("it was applied without its container %q", d.Container)
	}
	config.Spec.Template.Spec.Containers[at].Args = to.Args
	strategy := applyappsv1.DaemonSetUpdateStrategy().WithType(to.Strategy.Type)
	if rolling := to.Strategy.RollingUpdate; rolling != nil {
		strategy.RollingUpdate = &applyappsv1.RollingUpdateDaemonSetApplyConfiguration{MaxUnavailable: rolling.MaxUnavailable, MaxSurge: rolling.MaxSurge}
	}
	config.Spec.UpdateStrategy = strategy
	if delete(config.Annotations, Before); before != "" {
		config.WithAnnotations(map[string]string{Before: before})
	}
	_, err = d.Client.AppsV1().DaemonSets(d.Namespace).Apply(ctx, config, metav1.ApplyOptions{FieldManager: manager, Force: true})
	return err
}
