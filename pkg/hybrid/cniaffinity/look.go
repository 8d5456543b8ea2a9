package cniaffinity

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// Manager is the name of this package in the managedFields of objects.
const Manager = "eks-hybrid-dra-cni-affinity"

// look brings one DaemonSet to where it belongs. It returns after how long to look
// again even if nothing happens, 0 for never.
func (k *Keeper) look(ctx context.Context, name types.NamespacedName) (time.Duration, error) {
	side, configured := k.side(name)
	item, there, err := k.sets.GetStore().GetByKey(name.String())
	if err != nil {
		return 0, fmt.Errorf("look for the DaemonSet: %w", err)
	}
	set, ok := item.(*unstructured.Unstructured)
	if !there || !ok {
		if k.forget(name); configured && side != v1alpha1.AnyNodes {
			klog.FromContext(ctx).V(1).Info("A DaemonSet that is configured is not there; it is kept where it belongs once it is")
		}
		return 0, nil
	}
	v := &visit{Keeper: k, name: name, side: side, configured: configured, set: set}
	again, err := v.run(ctx)
	if err != nil {
		if apierrors.IsConflict(err) {
			return 0, err // the watch tells of it, or has done so already
		}
		v.refuse(ctx, ReasonFailed, "%v", err)
	}
	return again, err
}

func (k *Keeper) forget(name types.NamespacedName) {
	k.Metrics.forget(name)
	k.teller.forget(name)
	delete(k.fights, name)
}

// visit is one look at one DaemonSet.
type visit struct {
	*Keeper
	name       types.NamespacedName
	side       v1alpha1.NodeSide
	configured bool
	set        *unstructured.Unstructured
}

func (v *visit) run(ctx context.Context) (time.Duration, error) {
	set, err := daemonSets().read(v.set)
	if err != nil {
		if v.configured {
			v.refuse(ctx, ReasonUnreadable, "%v", err)
		}
		return 0, nil
	}
	s, effective := set, (*corev1.NodeSelector)(nil)
	if owner := metav1.GetControllerOf(v.set); owner != nil && !v.asWanted(set) {
		if !ofInstallation(owner) {
			return v.foreign(ctx, owner, set)
		}
		if !v.configured && !ours(set.required) {
			return 0, nil
		}
		if s, err = v.installation(ctx); err != nil {
			if !v.configured && apierrors.IsForbidden(err) {
				return 0, nil // nobody has asked this controller to look after Calico
			}
			return 0, err
		}
		effective = set.required
		if s.nodeSelector == nil {
			s.nodeSelector = set.nodeSelector
		}
	}
	return v.bring(ctx, s, effective)
}

// asWanted tells whether there is nothing to do about a DaemonSet, whoever has seen
// to that.
func (v *visit) asWanted(s *state) bool {
	return v.configured && v.side != v1alpha1.AnyNodes && s.record == nil && (keptByLabels(s.nodeSelector, v.side) || kept(s.required, v.side))
}

// ours tells whether a selector may have been written by this package.
func ours(selector *corev1.NodeSelector) bool {
	if selector == nil {
		return false
	}
	for _, term := range selector.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if equality.Semantic.DeepEqual(e, expression(v1alpha1.HybridNodes)) || equality.Semantic.DeepEqual(e, expression(v1alpha1.CloudNodes)) {
				return true
			}
		}
	}
	return false
}

// foreign is for DaemonSets that an operator makes which this package does not know:
// it would undo every change at once.
func (v *visit) foreign(ctx context.Context, owner *metav1.OwnerReference, set *state) (time.Duration, error) {
	if set.record != nil {
		// It was changed before it had an owner.
		if err := v.giveBack(ctx, set); err != nil {
			return 0, err
		}
	}
	if v.configured && v.side != v1alpha1.AnyNodes {
		want := expression(v.side)
		v.refuse(ctx, ReasonOwned, "%s %s (%s) makes this DaemonSet and would undo a change: set the node affinity %s %s %v of its pods in that object, or in the values of the chart that makes it",
			owner.Kind, owner.Name, owner.APIVersion, want.Key, want.Operator, want.Values)
	}
	return 0, nil
}

// installation returns the object of Calico's operator.
func (v *visit) installation(ctx context.Context) (*state, error) {
	object, err := v.Client.Resource(installations().resource).Get(ctx, installationName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the %s %s, of which Calico's operator makes this DaemonSet: %w", installationKind, installationName, err)
	}
	s, err := installations().read(object)
	if err != nil {
		return nil, fmt.Errorf("read the %s %s: %w", installationKind, installationName, err)
	}
	return s, nil
}

// bring writes what there is to write.
func (v *visit) bring(ctx context.Context, s *state, effective *corev1.NodeSelector) (time.Duration, error) {
	if v.side == v1alpha1.AnyNodes {
		return 0, v.giveBack(ctx, s)
	}
	byOperator := s.object != v.set
	c := keep(s, v.side, effective)
	if c == nil || !c.moves {
		if c != nil {
			if err := write(ctx, v.Client, s, c); err != nil {
				return 0, err
			}
		}
		v.fine(byOperator)
		return v.settle(v.name), nil
	}
	if empty, err := v.emptied(ctx, s, c, effective); err != nil || empty {
		return 0, err
	}
	if wait := v.resist(v.name, v.side, c.again); wait > 0 {
		v.tellReverted(ctx, s)
		return wait, nil
	}
	if err := write(ctx, v.Client, s, c); err != nil {
		return 0, err
	}
	v.written(v.name, v.side)
	v.fine(byOperator)
	want := expression(v.side)
	klog.FromContext(ctx).Info("Keeping a DaemonSet where it belongs", "nodes", v.side, "object", s.object.GetKind(), "again", c.again)
	v.Events.Eventf(v.set, corev1.EventTypeNormal, eventKept, "its pods are kept on %s nodes by the required node affinity %s %s %v", v.side, want.Key, want.Operator, want.Values)
	return v.settle(v.name), nil
}

// emptied refuses a change after which the DaemonSet would have no pod any more:
// without its network plugin, a node is lost to the cluster.
func (v *visit) emptied(ctx context.Context, s *state, c *change, effective *corev1.NodeSelector) (bool, error) {
	nodes, err := v.Nodes(ctx)
	if err != nil {
		return false, fmt.Errorf("look which nodes the DaemonSet would run on: %w", err)
	}
	before := s.required
	if before == nil {
		before = effective
	}
	had := matching(nodes, s.nodeSelector, before)
	if had == 0 || matching(nodes, s.nodeSelector, c.required) > 0 {
		return false, nil
	}
	want := expression(v.side)
	v.refuse(ctx, ReasonNoNode, "kept on %s nodes it would run on none, and now it does on %d: no node that it selects has the label %s %s %v; it is changed once there is such a node",
		v.side, had, want.Key, want.Operator, want.Values)
	return true, nil
}

func (v *visit) giveBack(ctx context.Context, s *state) error {
	written, err := restore(ctx, v.Client, s)
	if written {
		klog.FromContext(ctx).Info("A DaemonSet has back the node affinity that it had", "object", s.object.GetKind())
		v.Events.Event(v.set, corev1.EventTypeNormal, eventReturned, "it is not kept on some of the nodes any more: its node affinity is its owner's again")
	}
	if err != nil {
		return err
	}
	v.forget(v.name)
	return nil
}

// write changes an object, unless somebody else has done so meanwhile.
func write(ctx context.Context, client dynamic.Interface, s *state, c *change) error {
	patch, err := s.patch(c.required, c.record, c.present)
	if err != nil {
		return err
	}
	written, err := client.Resource(s.kind.resource).Namespace(s.object.GetNamespace()).
		Patch(ctx, s.object.GetName(), types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager})
	if err != nil {
		return fmt.Errorf("write the node affinity of %s %s: %w", s.object.GetKind(), objectName(s.object), err)
	}
	s.object = written
	return nil
}

func objectName(o *unstructured.Unstructured) string {
	if o.GetNamespace() == "" {
		return o.GetName()
	}
	return o.GetNamespace() + "/" + o.GetName()
}
