package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	resourceapi "k8s.io/api/resource/v1"
)

// status is what the health endpoints know.
type status struct {
	mu         sync.Mutex
	helper     *kubeletplugin.Helper
	isComplete bool
	lastError  error
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
	s.isComplete, s.lastError = false, nil
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
	helper, isComplete, lastError := d.status.helper, d.status.isComplete, d.status.lastError
	d.status.mu.Unlock()
	if helper == nil {
		return errors.New("the plugin's services are not started yet")
	}
	registration := helper.RegistrationStatus()
	switch {
	case registration == nil:
		return fmt.Errorf("kubelet has not registered the plugin yet: see that it watches %s", d.options.RegistrarDir)
	case !registration.PluginRegistered:
		return fmt.Errorf("kubelet refused the plugin: %s", registration.Error)
	case isComplete:
		return nil
	}
	if err := d.checkPublished(ctx); err != nil {
		return errors.Join(err, lastError)
	}
	d.status.mu.Lock()
	defer d.status.mu.Unlock()
	d.status.isComplete = true
	return nil
}

// checkPublished compares what the API has with what should be there.
func (d *Driver) checkPublished(ctx context.Context) error {
	list, err := d.options.KubeClient.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{
		FieldSelector: fields.SelectorFromSet(fields.Set{
			resourceapi.ResourceSliceSelectorDriver:   d.options.DriverName,
			resourceapi.ResourceSliceSelectorNodeName: d.options.NodeName,
		}).String(),
	})
	if err != nil {
		return fmt.Errorf("list this node's ResourceSlices: %w", err)
	}
	published := 0
	for _, s := range list.Items {
		published += len(s.Spec.Devices)
	}
	if want := len(d.inventory.devices()); published != want {
		return fmt.Errorf("%d of %d devices are in the node's ResourceSlices", published, want)
	}
	return nil
}
