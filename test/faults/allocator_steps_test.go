package faults

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
)

// managing gives an instance a configuration by which the controller gives the
// GPUs.
func managing() option {
	return func(p *plugin) {
		path := filepath.Join(p.node.dir, "config.yaml")
		p.node.write(path, "apiVersion: resource.eks-hybrid-dra/v1alpha1\nkind: NodeConfig\nmanaged: {kinds: [gpu], settle: 5s}\n")
		p.cmd.Args = append(p.cmd.Args, "--config="+path)
	}
}

// Wherever the plugin is killed or fails while it writes down who gives its
// devices, the API never says that the one does before it has said that nobody
// does, and in the end it says what the configuration does.
func TestEveryStepOfAllocators(t *testing.T) {
	for _, step := range faultpoint.AllocatorSteps() {
		for _, how := range []string{"kill", "error"} {
			t.Run(fmt.Sprintf("%s at %s", how, step), func(t *testing.T) {
				t.Parallel()
				n := newNode(t)
				n.start().stop() // a node on which kube-scheduler gives the GPUs
				stop := n.watchGivers()
				if step == faultpoint.AllocatorsSetAside {
					n.write(filepath.Join(n.dataDir(), "allocators.json"), `{"version":1,"dec`)
				}
				f := fault{step: step, how: how}
				p := n.launch(with(f), managing())
				if how == "kill" {
					p.mustHaveBeenKilled()
					p = n.launch(managing())
				} else {
					p.waitLog(f.text())
				}
				n.waitGiver(v1alpha1.ManagedByController)
				if err := stop(); err != nil {
					t.Error(err)
				}
				// A configuration that says nothing gives them back.
				p.kill()
				p = n.launch(unmanaging())
				n.waitGiver("")
				p.stop()
			})
		}
	}
}

// unmanaging gives an instance a configuration by which nothing is managed.
func unmanaging() option {
	return func(p *plugin) {
		path := filepath.Join(p.node.dir, "config.yaml")
		p.node.write(path, "apiVersion: resource.eks-hybrid-dra/v1alpha1\nkind: NodeConfig\nmanaged: {settle: 5s}\n")
		p.cmd.Args = append(p.cmd.Args, "--config="+path)
	}
}

// giver returns who gives a device, by its taint: nothing for kube-scheduler.
func giver(d resourceapi.Device) string {
	for _, taint := range d.Taints {
		if taint.Key == v1alpha1.TaintManaged {
			return taint.Value
		}
	}
	return ""
}

func (n *node) slices() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.Set{
		resourceapi.ResourceSliceSelectorNodeName: n.name, resourceapi.ResourceSliceSelectorDriver: driverName,
	}.String()}
}

func (n *node) waitGiver(want string) {
	n.t.Helper()
	eventually(n.t, "given by "+want, func() error {
		list, err := bed.client.ResourceV1().ResourceSlices().List(n.t.Context(), n.slices())
		if err != nil {
			return err
		}
		count := 0
		for _, s := range list.Items {
			for _, d := range s.Spec.Devices {
				if giver(d) == want {
					count++
				}
			}
		}
		if count != gpus {
			return fmt.Errorf("%d of %d GPUs", count, gpus)
		}
		return nil
	})
}

// watchGivers begins to look at who is said to give the node's devices. The
// function that it returns tells whether one has followed the other at once.
func (n *node) watchGivers() (stop func() error) {
	n.t.Helper()
	watcher, err := bed.client.ResourceV1().ResourceSlices().Watch(n.t.Context(), n.slices())
	if err != nil {
		n.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var errs []error
		last := map[string]string{}
		for event := range watcher.ResultChan() {
			slice, ok := event.Object.(*resourceapi.ResourceSlice)
			if !ok || event.Type == watch.Deleted {
				continue
			}
			for _, d := range slice.Spec.Devices {
				now := giver(d)
				if before, seen := last[d.Name]; seen && before != now && before != v1alpha1.ManagedSettling && now != v1alpha1.ManagedSettling {
					errs = append(errs, fmt.Errorf("device %s is given by %q right after %q", d.Name, now, before))
				}
				last[d.Name] = now
			}
		}
		done <- errors.Join(errs...)
	}()
	return func() error {
		watcher.Stop()
		return <-done
	}
}
