package driver

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// updateMetadata writes the metadata file of a request anew, as the
// kubeletplugin helper does.
type updateMetadata func(ctx context.Context, namespace, claim string, uid types.UID, request string, devices []kubeletplugin.Device) error

// tellContainers puts into a claim's metadata files what its devices have become
// in a pod: when the claim was prepared, nobody knew the names and addresses of
// its interfaces. A file that cannot be written is no reason to keep a container
// from starting, as with those that the preparation writes.
func (d *Driver) tellContainers(ctx context.Context, r *claimstore.Record) {
	if d.updateMetadata == nil {
		return // nobody has written any
	}
	byRequest := map[string][]kubeletplugin.Device{}
	var attached []string
	for _, dev := range answer(r) {
		request := dev.Requests[0]
		byRequest[request] = append(byRequest[request], dev)
		if dev.Metadata.NetworkData != nil && !slices.Contains(attached, request) {
			attached = append(attached, request)
		}
	}
	for _, request := range attached {
		if err := d.updateMetadata(ctx, r.Claim.Namespace, r.Claim.Name, r.Claim.UID, request, byRequest[request]); err != nil {
			klog.FromContext(ctx).Error(err, "The metadata file of a request does not tell what its devices have become in the pod", "request", request)
		}
	}
}
