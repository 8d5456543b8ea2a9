package pairs

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"
)

const (
	// FilterTimeout is how long kube-scheduler lets the allocator search on one
	// node (filterTimeout of its DynamicResourcesArgs, by default).
	FilterTimeout = 10 * time.Second
	// parallelism is on how many nodes kube-scheduler searches at a time
	// (parallelism of its configuration, by default).
	parallelism = 16
	// compiled is how many compiled expressions kube-scheduler keeps
	// (dynamicresources.New).
	compiled = 10
)

// library is the scheduler's allocator, used as the scheduler does.
type library struct {
	classes classes
	cache   *cel.Cache
	// timeout bounds the search on one node.
	timeout time.Duration
}

func newLibrary(ctx context.Context, client kubernetes.Interface) (*library, error) {
	l := &library{
		classes: classes{}, cache: cel.NewCache(compiled, cel.Features{EnableConsumableCapacity: true}), timeout: FilterTimeout,
	}
	for _, name := range []string{gpuClass, vfClass, pairClass} {
		class, err := client.ResourceV1().DeviceClasses().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read the device class %s: %w", name, err)
		}
		l.classes[name] = class
	}
	return l, nil
}

// classes are DeviceClasses by name.
type classes map[string]*resourceapi.DeviceClass

// List returns all classes.
func (c classes) List() ([]*resourceapi.DeviceClass, error) {
	var all []*resourceapi.DeviceClass
	for _, class := range c {
		all = append(all, class)
	}
	return all, nil
}

// Get returns a class, or an error if there is none of that name.
func (c classes) Get(name string) (*resourceapi.DeviceClass, error) {
	class, ok := c[name]
	if !ok {
		return nil, fmt.Errorf("there is no device class %s", name)
	}
	return class, nil
}

// features are what kube-scheduler 1.37 has on by default.
func features() structured.Features {
	return structured.Features{
		AdminAccess: true, ConsumableCapacity: true, DeviceBindingAndStatus: true, DeviceTaints: true,
		FractionalCapacityRange: true, PartitionableDevices: true, PrioritizedList: true,
	}
}

// situation is what a scheduler knows when a pod comes.
type situation struct {
	nodes  []*corev1.Node
	slices []*resourceapi.ResourceSlice
	taken  sets.Set[structured.DeviceID]
}

// answer is what a scheduler finds out about a claim.
type answer struct {
	took time.Duration
	// nodes is how many have what the claim asks for, and undecided on how many
	// the search was given up.
	nodes, undecided int
}

// ask searches on all nodes of a situation for what a claim asks for, as
// kube-scheduler does in its phases PreFilter and Filter.
func (l *library) ask(ctx context.Context, at situation, devices resourceapi.DeviceClaim) (answer, error) {
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: "pairs"}}
	claim.Spec.Devices = devices
	var found, undecided atomic.Int64
	start := time.Now()
	allocator, err := structured.NewAllocator(ctx, features(), structured.AllocatedState{
		AllocatedDevices:         at.taken,
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}, l.classes, at.slices, l.cache)
	if err != nil {
		return answer{}, fmt.Errorf("make an allocator: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelism)
	for _, node := range at.nodes {
		group.Go(func() error {
			limited, cancel := context.WithTimeout(ctx, l.timeout)
			defer cancel()
			results, err := allocator.Allocate(limited, node, []*resourceapi.ResourceClaim{claim})
			switch {
			case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
				undecided.Add(1)
			case err != nil:
				return fmt.Errorf("search on node %s: %w", node.Name, err)
			case len(results) > 0:
				found.Add(1)
			}
			return nil
		})
	}
	err = group.Wait()
	return answer{took: time.Since(start), nodes: int(found.Load()), undecided: int(undecided.Load())}, err
}
