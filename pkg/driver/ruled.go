package driver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// partRules are what admins say of devices with DeviceTaintRules.
type partRules interface {
	// Follow looks for rules until ctx is done, and calls changed when they may
	// say something else of devices of the pool.
	Follow(ctx context.Context, changed func())
	// Known is closed when it is first known what the rules say.
	Known() <-chan struct{}
	// Naming returns the taints of rules that select one of the devices by its
	// name, in an order that stays the same.
	Naming(devices ...string) []resourceapi.DeviceTaint
}

// ruled gives composites the taints that rules give to their parts. Kubernetes
// applies a rule that names a device to that one alone, and would give the
// device away as a part of another. Rules are no problems of the hardware: a
// composite that has a taint by rule is as healthy as before.
type ruled struct {
	rules partRules // nil where there are no composites
	// told is what was logged the last time.
	told string
}

// follow has the slices published anew whenever rules change.
func (r *ruled) follow(ctx context.Context, changed func()) {
	if r.rules != nil {
		r.rules.Follow(ctx, changed)
	}
}

// taints returns those of each composite of which a rule names a part. It waits
// for a while for rules that are not known yet: an earlier instance may have
// published their taints, which must not go in between.
func (r *ruled) taints(ctx context.Context, devices []owned) map[string][]resourceapi.DeviceTaint {
	if r.rules == nil || !slices.ContainsFunc(devices, owned.isComposite) {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-r.rules.Known():
	case <-time.After(askFor):
	}
	all := map[string][]resourceapi.DeviceTaint{}
	var told []string
	for _, d := range devices {
		if !d.isComposite() {
			continue
		}
		var parts []string
		for _, part := range d.parts {
			parts = append(parts, part.Name)
		}
		// That key says who gives a device, and is this plugin's alone.
		taints := slices.DeleteFunc(r.rules.Naming(parts...), func(t resourceapi.DeviceTaint) bool { return t.Key == v1alpha1.TaintManaged })
		if len(taints) == 0 {
			continue
		}
		all[d.Name] = taints
		for _, taint := range taints {
			told = append(told, fmt.Sprintf("%s: %s=%s:%s", d.Name, taint.Key, taint.Value, taint.Effect))
		}
	}
	r.tell(ctx, strings.Join(told, ", "))
	return all
}

// withRules returns the content with the taints that rules give to composites,
// and what of all that the API server keeps. An error means that it does not
// answer.
func (d *Driver) withRules(ctx context.Context, content pool) (pool, features, error) {
	kept, err := d.features(ctx, content)
	if err != nil {
		return content, kept, err // nobody can tell of rules either
	}
	content.ruled = d.ruled.taints(ctx, content.devices)
	if len(content.ruled) == 0 {
		return content, kept, nil
	}
	kept, err = d.features(ctx, content)
	if !kept.taints {
		content.ruled = nil
	}
	return content, kept, err
}

// tell logs what is new of taints by rules.
func (r *ruled) tell(ctx context.Context, told string) {
	if told == r.told {
		return
	}
	r.told = told
	if told == "" {
		klog.FromContext(ctx).Info("No DeviceTaintRule names a part of a composite any more")
		return
	}
	klog.FromContext(ctx).Info("Composites have the taints of DeviceTaintRules that name one of their parts", "taints", told)
}
