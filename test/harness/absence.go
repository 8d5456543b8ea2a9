package harness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Absence measures for how long the API had fewer devices of the driver than it
// should have.
type Absence struct {
	want int

	mu      sync.Mutex
	devices map[string]int // by slice
	since   time.Time      // zero while all are there
	total   time.Duration

	cancel context.CancelFunc
	ended  chan struct{}
}

// MeasureAbsence begins to measure, until [Absence.Stop]. An API server that is
// away is no absence: what it had before and has afterwards counts.
func (c *Cluster) MeasureAbsence(ctx context.Context, want int) (*Absence, error) {
	watched, cancel := context.WithCancel(ctx)
	a := &Absence{want: want, devices: map[string]int{}, since: time.Now(), cancel: cancel, ended: make(chan struct{})}
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(c.Client.ResourceV1().RESTClient(), "resourceslices", metav1.NamespaceAll, func(o *metav1.ListOptions) {
			o.FieldSelector = driverSlices().FieldSelector
		}),
		ObjectType: &resourceapi.ResourceSlice{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    a.have,
			UpdateFunc: func(_, slice any) { a.have(slice) },
			DeleteFunc: a.gone,
		},
	})
	go func() {
		defer close(a.ended)
		controller.RunWithContext(watched)
	}()
	if !cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) {
		cancel()
		return nil, fmt.Errorf("watching the driver's ResourceSlices: %w", ctx.Err())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.since.IsZero() {
		cancel()
		return nil, errors.New("devices are absent before anything happened")
	}
	a.total = 0 // what passed before the first list
	return a, nil
}

// Stop ends the measuring and returns the whole time of absence.
func (a *Absence) Stop() time.Duration {
	a.cancel()
	<-a.ended
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.since.IsZero() {
		return a.total + time.Since(a.since)
	}
	return a.total
}

func (a *Absence) have(object any) {
	if slice, ok := object.(*resourceapi.ResourceSlice); ok {
		a.note(slice.Name, len(gpusOf(*slice)))
	}
}

func (a *Absence) gone(object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	if slice, ok := object.(*resourceapi.ResourceSlice); ok {
		a.note(slice.Name, 0)
	}
}

func (a *Absence) note(slice string, devices int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.devices[slice] = devices
	published := 0
	for _, n := range a.devices {
		published += n
	}
	switch {
	case published < a.want && a.since.IsZero():
		a.since = time.Now()
	case published >= a.want && !a.since.IsZero():
		a.total += time.Since(a.since)
		a.since = time.Time{}
	}
}
