package allocation

import (
	"context"
	"fmt"
	"sync"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	toolscache "k8s.io/client-go/tools/cache"
)

// sliceWatch brings ResourceSlices to the fleet, which keeps of them what it
// needs. A cache of the slices themselves would be most of what the controller
// needs of memory.
type sliceWatch struct {
	*Controller
	mu     sync.Mutex
	names  map[string]bool
	listed bool
}

func newSliceWatch(c *Controller) *sliceWatch {
	return &sliceWatch{Controller: c, names: map[string]bool{}}
}

func (w *sliceWatch) run(ctx context.Context) {
	slices := toolscache.NewFilteredListWatchFromClient(w.Client.ResourceV1().RESTClient(), "resourceslices", metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(resourceapi.ResourceSliceSelectorDriver, w.DriverName).String()
	})
	toolscache.NewReflectorWithOptions(slices, &resourceapi.ResourceSlice{}, w, toolscache.ReflectorOptions{Name: "resourceslices"}).RunWithContext(ctx)
}

// synced tells whether all slices there were at the start are known.
func (w *sliceWatch) synced() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listed
}

// Transformer makes a list that comes as a stream be taken in slice by slice: all
// of a large cluster's slices at once would need more memory than anything else
// in this program.
func (w *sliceWatch) Transformer() toolscache.TransformFunc {
	return func(object any) (any, error) {
		slice, ok := object.(*resourceapi.ResourceSlice)
		if !ok {
			return object, nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.set(slice)
		return &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: slice.Name, ResourceVersion: slice.ResourceVersion}}, nil
	}
}

// Add takes in a new slice.
func (w *sliceWatch) Add(object any) error { return w.Update(object) }

// Update takes in a slice.
func (w *sliceWatch) Update(object any) error {
	slice, ok := object.(*resourceapi.ResourceSlice)
	if !ok {
		return fmt.Errorf("watch of ResourceSlices brought %T", object)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set(slice)
	w.waiting.changed()
	return nil
}

func (w *sliceWatch) set(slice *resourceapi.ResourceSlice) {
	w.names[slice.Name] = true
	if slice.Spec.Driver != "" { // else it has been taken in by the Transformer
		w.Fleet.SetSlice(slice)
	}
}

// Delete takes out a slice that is gone.
func (w *sliceWatch) Delete(object any) error {
	slice, ok := object.(*resourceapi.ResourceSlice)
	if !ok {
		return fmt.Errorf("watch of ResourceSlices brought %T", object)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.names, slice.Name)
	w.Fleet.DeleteSlice(slice.Name)
	// Slices of a pool may be there twice until the old ones are gone.
	w.waiting.changed()
	return nil
}

// Replace takes in all slices there are.
func (w *sliceWatch) Replace(objects []any, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	there := make(map[string]bool, len(objects))
	for _, object := range objects {
		slice, ok := object.(*resourceapi.ResourceSlice)
		if !ok {
			return fmt.Errorf("list of ResourceSlices brought %T", object)
		}
		there[slice.Name] = true
		w.set(slice)
	}
	for name := range w.names {
		if !there[name] {
			delete(w.names, name)
			w.Fleet.DeleteSlice(name)
		}
	}
	w.listed = true
	w.waiting.changed()
	return nil
}

// Resync does nothing: nothing gets lost here.
func (w *sliceWatch) Resync() error { return nil }
