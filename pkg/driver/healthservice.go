package driver

import (
	"context"
	"fmt"
	"time"

	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

const (
	// reportEvery is how often kubelet is told the health of the devices when
	// nothing changes. What it does not hear for 30 s it takes for unknown.
	reportEvery = 10 * time.Second
	// lookLimit is how long a look at the hardware may take until its last
	// answer is not vouched for any more.
	lookLimit = 30 * time.Second
)

// WatchHealthStatus tells kubelet how the devices are, now, after every look at
// the hardware and again every few seconds, until ctx is done. Kubelet writes
// it to the status of the pods that have them.
func (d *Driver) WatchHealthStatus(ctx context.Context, reports chan<- kubeletplugin.DeviceHealthReport) error {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for {
		looked, since := d.inventory.nextLook()
		report := d.healthReport(ctx, since)
		select {
		case <-ctx.Done():
			return nil
		case reports <- report:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-looked:
		case <-ticker.C:
		}
	}
}

// healthReport tells of the devices that are there, and of those that are gone
// although a claim has them.
func (d *Driver) healthReport(ctx context.Context, lookingSince time.Time) kubeletplugin.DeviceHealthReport {
	var report kubeletplugin.DeviceHealthReport
	now := time.Now()
	add := func(name string, health kubeletplugin.HealthStatus, message string) {
		report.Devices = append(report.Devices, kubeletplugin.DeviceHealth{
			PoolName: d.pool, DeviceName: name, Health: health, LastUpdated: now, Message: message,
		})
	}
	stuck := !lookingSince.IsZero() && now.Sub(lookingSince) > lookLimit
	for _, dev := range d.inventory.devices() {
		switch complaint := dev.complaint(); {
		case stuck:
			add(dev.Name, kubeletplugin.HealthStatusUnknown, fmt.Sprintf("the hardware was last asked at %s and has not answered yet", lookingSince.UTC().Format(time.RFC3339)))
		case complaint != "":
			add(dev.Name, kubeletplugin.HealthStatusUnhealthy, complaint)
		default:
			add(dev.Name, kubeletplugin.HealthStatusHealthy, "")
		}
	}
	for name, entry := range d.goneDevices(ctx) {
		if err := d.inventory.familyError(entry.Family); err != nil {
			add(name, kubeletplugin.HealthStatusUnknown, err.Error())
			continue
		}
		add(name, kubeletplugin.HealthStatusUnhealthy, "the device is not on the node any more: "+d.whyMissing())
	}
	return report
}

// goneDevices returns the devices that claims have but the node has not.
func (d *Driver) goneDevices(ctx context.Context) map[string]claimstore.Device {
	uids, err := d.store.Claims()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot tell which claims have devices that are gone")
		return nil
	}
	gone := map[string]claimstore.Device{}
	for _, uid := range uids {
		record, err := d.store.Load(uid)
		if err != nil || record == nil { // set aside when it is next needed, or unprepared in between
			continue
		}
		for _, entry := range record.Devices {
			if _, ok := d.inventory.device(entry.Device); !ok {
				gone[entry.Device] = entry
			}
		}
	}
	return gone
}
