package uninstall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/uninstall/workload"
)

// reachable refuses while nodes of the plugin or of registry-trust are not
// ready, or notes that these are skipped.
func (u *uninstaller) reachable(ctx context.Context) error {
	has := map[string]bool{}
	for _, set := range []workload.DaemonSet{u.plugin, u.registryTrust} {
		if set.Name == "" {
			continue
		}
		nodes, _, err := set.Nodes(ctx)
		if err != nil {
			return err
		}
		for _, node := range nodes {
			has[node.Name] = true
		}
	}
	list, err := u.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("look which nodes are ready: %w", err)
	}
	for _, node := range list.Items {
		if has[node.Name] && !isReady(&node) {
			u.skipped[node.Name] = true
		}
	}
	if len(u.skipped) == 0 {
		return nil
	}
	names := strings.Join(slices.Sorted(maps.Keys(u.skipped)), ", ")
	if !u.SkipUnreachableNodes {
		return fmt.Errorf("these nodes are not ready, so that the driver cannot be taken off them: %s: "+
			"bring them back, or remove them from the cluster, or leave them as they are with uninstall.skipUnreachableNodes=true", names)
	}
	klog.FromContext(ctx).Info("These nodes are not ready, and what the driver has put there stays", "nodes", names)
	return nil
}

func isReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// offNodes returns when the plugin has taken itself off all nodes.
func (u *uninstaller) offNodes(ctx context.Context) error {
	if u.Plugin == "" {
		return nil
	}
	if err := u.replaced(ctx, u.plugin); err != nil {
		return err
	}
	return u.withoutSlices(ctx)
}

// replaced has the pods of a DaemonSet do the other thing, and returns when all
// have. It gives up at once if a claim gets devices meanwhile.
func (u *uninstaller) replaced(ctx context.Context, set workload.DaemonSet) error {
	found, err := set.Switch(ctx)
	if found {
		u.changed = append(u.changed, set)
	}
	if err != nil || !found {
		return err
	}
	return u.await(ctx, func(ctx context.Context) (string, error) {
		if err := u.guard(ctx); err != nil {
			return "", err
		}
		nodes, wanted, err := set.Nodes(ctx)
		if err != nil {
			return "", err
		}
		return u.notDone(nodes, wanted), nil
	})
}

// notDone names the nodes that are not done, with the reason.
func (u *uninstaller) notDone(nodes []workload.Node, wanted int) string {
	var missing []string
	done := 0
	for _, node := range nodes {
		if node.Done || u.skipped[node.Name] {
			done++
			continue
		}
		missing = append(missing, node.Name+": "+node.Why)
	}
	if len(missing) == 0 && done < wanted {
		missing = append(missing, fmt.Sprintf("%d of %d nodes have no pod yet", wanted-done, wanted))
	}
	if len(missing) == 0 {
		return ""
	}
	return "not all nodes are done: " + strings.Join(missing, "; ")
}

// withoutSlices deletes the slices of nodes that are skipped, and returns when
// none is left.
func (u *uninstaller) withoutSlices(ctx context.Context) error {
	slicesOfDriver := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(resourceapi.ResourceSliceSelectorDriver, u.DriverName).String()}
	return u.await(ctx, func(ctx context.Context) (string, error) {
		list, err := u.Client.ResourceV1().ResourceSlices().List(ctx, slicesOfDriver)
		if apierrors.IsNotFound(err) {
			return "", nil // an API server without ResourceSlices
		}
		if err != nil {
			return "", fmt.Errorf("look for ResourceSlices of driver %s: %w", u.DriverName, err)
		}
		var left []string
		var errs []error
		for _, slice := range list.Items {
			node := ""
			if slice.Spec.NodeName != nil {
				node = *slice.Spec.NodeName
			}
			left = append(left, slice.Name)
			if u.skipped[node] {
				errs = append(errs, u.Client.ResourceV1().ResourceSlices().Delete(ctx, slice.Name, metav1.DeleteOptions{}))
			}
		}
		if len(left) == 0 {
			return "", nil
		}
		return "ResourceSlices are left: " + strings.Join(left, ", "), errors.Join(errs...)
	})
}

// untrust returns when registry-trust has removed what it wrote on all nodes.
func (u *uninstaller) untrust(ctx context.Context) error {
	if u.RegistryTrust == "" {
		return nil
	}
	return u.replaced(ctx, u.registryTrust)
}

// registryTrustArgs keeps what says where registry-trust has written.
func registryTrustArgs(usual []string) []string {
	args := []string{"remove", "--stay"}
	for _, arg := range usual {
		if strings.HasPrefix(arg, "--certs-dir=") || strings.HasPrefix(arg, "--http-address=") {
			args = append(args, arg)
		}
	}
	return args
}
