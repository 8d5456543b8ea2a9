package hybrid

import (
	"context"
	"errors"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/cniaffinity"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/hybrid/pullsecret"
)

// Undone is what [Undo] has undone.
type Undone struct {
	// Affinity are the objects whose node affinity is their owner's again, such as
	// "DaemonSet kube-system/cilium".
	Affinity []string
	// Secrets are the copies that were removed, as <namespace>/<name>.
	Secrets []string
}

// Undo takes everything back that a controller with this configuration has done in
// the cluster. The controller must have ended, or it does it again. Namespace is the
// controller's own. What config lacks was not switched on, and is not looked for, so
// that no permission for it is needed. Undo can be repeated, and goes on after an
// error with what is left; the errors are joined.
//
// For the affinity it needs to list and patch DaemonSets in all namespaces, and to
// get and patch installations.operator.tigera.io; for the copies to list namespaces
// and to get and delete Secrets of the configured names in all namespaces.
func Undo(ctx context.Context, client kubernetes.Interface, objects dynamic.Interface, namespace string, config *v1alpha1.HybridConfig) (Undone, error) {
	var (
		undone Undone
		errs   [2]error
	)
	if config.CNIAffinity != nil {
		undone.Affinity, errs[0] = cniaffinity.Restore(ctx, objects)
	}
	if config.PullSecret != nil {
		undone.Secrets, errs[1] = pullsecret.RemoveAll(ctx, client, namespace, config.PullSecret)
	}
	return undone, errors.Join(errs[:]...)
}
