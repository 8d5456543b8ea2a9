package driver

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// unattached is a claim with devices that are attached nowhere while its pods
// run.
type unattached struct {
	pods []types.UID // with processes
	told bool
}

// reportUnattached tells of claims whose devices are still attached nowhere
// though one of their pods was running at the look before already. A pod none
// of whose containers references its claim is like that: no attach hook runs
// for it, so nothing fails. It returns what the next look needs, and asks
// nobody outside this machine.
func (d *Driver) reportUnattached(ctx context.Context, before map[types.UID]unattached) map[types.UID]unattached {
	if d.statuses == nil {
		return nil
	}
	records, pods, err := d.unattachedRecords()
	if err == nil {
		pods, err = d.options.Processes.Running(pods)
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot look for claims whose devices are attached to no pod")
		return before
	}
	now := map[types.UID]unattached{}
	for _, record := range records {
		uid := record.Claim.UID
		last := before[uid]
		found := unattached{told: last.told}
		for _, pod := range record.Pods {
			if slices.Contains(pods, pod) {
				found.pods = append(found.pods, pod)
			}
		}
		if slices.ContainsFunc(found.pods, func(pod types.UID) bool { return slices.Contains(last.pods, pod) }) {
			if !found.told {
				klog.FromContext(ctx).Info("No container has started with the devices of a claim yet, though its pod runs: see that one lists the claim in resources.claims",
					"claim", klog.KRef(record.Claim.Namespace, record.Claim.Name), "claimUID", uid, "podUIDs", found.pods)
			}
			found.told = true
			d.statuses.Unused(ctx, uid)
		}
		now[uid] = found
	}
	return now
}

// unattachedRecords returns the records of claims with devices that should be
// attached and are attached nowhere, and the pods of all of them.
func (d *Driver) unattachedRecords() ([]*claimstore.Record, []types.UID, error) {
	uids, err := d.store.Claims()
	if err != nil {
		return nil, nil, err
	}
	var records []*claimstore.Record
	var pods []types.UID
	for _, uid := range uids {
		record, err := d.store.Load(uid)
		if err != nil || record == nil {
			continue // gone, or dealt with by whoever has the claim's lock
		}
		// What was prepared before a reboot is prepared anew before its pod starts.
		if record.BootID != d.options.BootID || len(record.Attached) > 0 || !record.MustAttach() {
			continue
		}
		records = append(records, record)
		pods = append(pods, record.Pods...)
	}
	return records, pods, nil
}
