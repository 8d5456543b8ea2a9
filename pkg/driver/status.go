package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/dynamic-resource-allocation/kubeletplugin"
)

// completeFor is how long an answer of the API server that all devices are
// there is believed. Kubelet may ask every few seconds.
const completeFor = 30 * time.Second

// status is what the health endpoints know.
type status struct {
	mu     sync.Mutex
	helper *kubeletplugin.Helper
	// complete is when the API last had all devices; zero if it has not since
	// they were last published.
	complete  time.Time
	lastError error
	// told tells that the log says that the API server knows no claims.
	told bool
	// served tells whether the API server had ResourceSlices at servedAsked.
	served      bool
	servedAsked time.Time
}

func (s *status) started(helper *kubeletplugin.Helper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.helper = helper
}

// publishing notes that what the API has is outdated.
func (s *status) publishing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete, s.lastError = time.Time{}, nil
}

func (s *status) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastError = err
}

// Ready returns nil once kubelet has accepted the plugin and all devices are
// in the API. Otherwise it says what is missing.
func (d *Driver) Ready(ctx context.Context) error {
	d.status.mu.Lock()
	helper, complete, lastError := d.status.helper, d.status.complete, d.status.lastError
	d.status.mu.Unlock()
	if helper == nil {
		return errors.New("the plugin's services are not started yet")
	}
	devices := d.offered(d.inventory.devices())
	if len(devices) == 0 && len(d.inventory.devices()) > 0 {
		return nil // claims are offered nothing, so nothing is missing
	}
	registration := helper.RegistrationStatus()
	switch {
	case (registration == nil || !registration.PluginRegistered) && !d.slicesServed(ctx):
		if len(devices) == 0 {
			return nil // nor has kubelet anything for claims
		}
		return fmt.Errorf("%d devices are for claims, of which the API server knows nothing, as before Kubernetes 1.34: add their kinds to devicePlugin.kinds of the configuration", len(devices))
	case registration == nil:
		return fmt.Errorf("kubelet has not registered the plugin yet: see that it watches %s", d.options.RegistrarDir)
	case !registration.PluginRegistered:
		return fmt.Errorf("kubelet refused the plugin: %s", registration.Error)
	case time.Since(complete) < completeFor:
		return nil
	}
	missing, err := d.notPublished(ctx, devices)
	if err != nil {
		if !complete.IsZero() {
			return nil // a node without its control plane serves on
		}
		return errors.Join(err, lastError)
	}
	if len(missing) > 0 {
		return errors.Join(fmt.Errorf("%d of %d devices are not in the node's ResourceSlices: %s",
			len(missing), len(devices), strings.Join(missing, ", ")), lastError)
	}
	d.status.mu.Lock()
	defer d.status.mu.Unlock()
	d.status.complete = time.Now()
	return nil
}

// notPublished asks the API server which of the devices are not in its slices.
func (d *Driver) notPublished(ctx context.Context, devices []owned) ([]string, error) {
	all, err := d.publishedSlices(ctx)
	if err != nil {
		return nil, err
	}
	published := map[string]bool{}
	for _, s := range all {
		if s.Spec.Pool.Name != d.pool {
			continue
		}
		for _, dev := range s.Spec.Devices {
			published[dev.Name] = true
		}
	}
	var missing []string
	absent := leftOut(devices, features{taints: d.tainting.lastKnown(), counters: d.counting.lastKnown()})
	for _, dev := range devices {
		if !absent[dev.Name] && !published[dev.Name] {
			missing = append(missing, dev.Name)
		}
	}
	return missing, nil
}
