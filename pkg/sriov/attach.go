package sriov

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// undoWait bounds the undoing of an attachment that has failed, whose caller
// waits for the reason. What is not undone then is undone before the next one,
// and when the claim is released.
const undoWait = 12 * time.Second

// Attach joins a prepared VF to a pod's network namespace: its interface, its
// RDMA device where those belong to namespaces, or what the CNI plugins of the
// claim make of it.
func (f *Family) Attach(ctx context.Context, grant device.Grant, sandbox device.Sandbox) (device.Attachment, error) {
	start := time.Now()
	address, err := addressOf(grant)
	if err != nil {
		return device.Attachment{}, err
	}
	if grant.AdminAccess {
		return device.Attachment{}, fmt.Errorf("VF %s: a claim with admin access sees the VF and does not get it", address)
	}
	unlock, err := f.journal.Lock(ctx, address)
	if err != nil {
		return device.Attachment{}, err
	}
	defer unlock()
	j, err := f.prepared(ctx, address, grant.Claim)
	if err != nil {
		return device.Attachment{}, err
	}
	config, err := configOf(j, grant)
	if err != nil {
		return device.Attachment{}, err
	}
	pod, err := f.kernel.Open(sandbox.Netns)
	if err != nil {
		return device.Attachment{}, fmt.Errorf("open the network namespace of pod %s: %w", sandbox.Pod, err)
	}
	sandbox.Netns, sandbox.Namespace = nil, pod.ID()
	attachment, err := f.attach(ctx, address, j, config, pod, sandbox)
	if err = errors.Join(err, pod.Close()); err != nil {
		return device.Attachment{}, err
	}
	if attachment.Changed {
		klog.FromContext(ctx).Info("VF attached", "claim", grant.Claim, "pod", sandbox.Pod, "device", address, "interface", attachment.Interface, "ips", attachment.IPs, "duration", time.Since(start))
	}
	return attachment, nil
}

// configOf returns the configuration that a VF was prepared with.
func configOf(j *vfstate.Journal, grant device.Grant) (*v1alpha1.VfConfig, error) {
	if len(j.Config) > 0 {
		config := &v1alpha1.VfConfig{}
		if err := json.Unmarshal(j.Config, config); err != nil {
			return nil, fmt.Errorf("read the configuration of VF %s from its journal: %w", j.Device, err)
		}
		return config, nil
	}
	config, ok := grant.Config.(*v1alpha1.VfConfig)
	if !ok {
		return nil, fmt.Errorf("a VF cannot be configured by a %T: use kind %s", grant.Config, v1alpha1.VfConfigKind)
	}
	return config, nil
}

func (f *Family) attach(ctx context.Context, a topology.Address, j *vfstate.Journal, config *v1alpha1.VfConfig, pod kernel.Namespace, sandbox device.Sandbox) (device.Attachment, error) {
	if pod.ID() == f.kernel.Host().ID() {
		if config.Mode == v1alpha1.VfModeNetdevice {
			return device.Attachment{}, fmt.Errorf("VF %s: pod %s has the host's network (hostNetwork: true), in which the interface is already and must not be changed: use mode %s or %s, or a pod with a network of its own", a, sandbox.Pod, v1alpha1.VfModeRDMA, v1alpha1.VfModeVFIO)
		}
		return device.Attachment{}, nil // the RDMA device is there already
	}
	if attachment, ok, err := f.attached(a, j, config, pod, sandbox); ok || err != nil {
		return attachment, err
	}
	if err := f.leave(ctx, a, j, sandbox.Pod, pod); err != nil {
		return device.Attachment{}, err
	}
	fn, err := f.function(a)
	if err != nil {
		return device.Attachment{}, err
	}
	m := &move{family: f, fn: fn, j: j, config: config, pod: pod}
	if err := m.plan(ctx, sandbox); err != nil {
		return device.Attachment{}, err
	}
	if err := f.savePlace(a, j, m.place, faultpoint.VFPlaceWritten); err != nil {
		return device.Attachment{}, err
	}
	attachment, err := m.run(ctx)
	if err == nil {
		done := *m.place
		done.Done, done.Attachment = true, attachment
		err = f.savePlace(a, j, &done, faultpoint.VFPlaceDone)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWait)
		defer cancel()
		if undoErr := f.takeBack(undo, a, j, pod); undoErr != nil {
			err = errors.Join(err, fmt.Errorf("take VF %s back: %w", a, undoErr))
		}
		return device.Attachment{}, err
	}
	attachment.Changed = true
	return attachment, nil
}

func (f *Family) savePlace(a topology.Address, j *vfstate.Journal, place *vfstate.Place, step faultpoint.Step) error {
	j.Place = place
	if err := f.journal.Save(a, j); err != nil {
		return err
	}
	return f.at(step)
}

// attached tells whether the VF is in the sandbox already, ready for use.
func (f *Family) attached(a topology.Address, j *vfstate.Journal, config *v1alpha1.VfConfig, pod kernel.Namespace, sandbox device.Sandbox) (device.Attachment, bool, error) {
	place := j.Place
	known := place != nil && place.Sandbox.ID == sandbox.ID && place.Sandbox.Namespace == pod.ID()
	if known && !place.Done || place != nil && !known {
		return device.Attachment{}, false, nil
	}
	if known && place.Interface == "" {
		there, err := hasRDMA(pod, place)
		return place.Attachment, there, err
	}
	if config.Mode != v1alpha1.VfModeNetdevice {
		return device.Attachment{}, false, nil
	}
	link, err := linkOf(pod, a)
	if err != nil || link == nil {
		return device.Attachment{}, false, err
	}
	if known {
		attachment := place.Attachment
		attachment.Interface = link.Name // the pod may have renamed it
		return attachment, true, nil
	}
	// The journal was lost while the pod ran.
	attachment, err := describeLink(pod, link)
	if err != nil {
		return device.Attachment{}, false, err
	}
	j.Place = &vfstate.Place{Sandbox: sandbox, Interface: link.Name, Done: true, Attachment: attachment}
	return attachment, true, f.savePlace(a, j, j.Place, faultpoint.VFPlaceDone)
}

// leave takes the VF out of the sandbox that has it, if that is one of the same
// pod, or one that has ended. A VF is never taken from another pod that lives.
func (f *Family) leave(ctx context.Context, a topology.Address, j *vfstate.Journal, pod device.Pod, netns kernel.Namespace) error {
	place := j.Place
	if place == nil {
		return nil
	}
	if place.Sandbox.Pod.UID != pod.UID && place.Done {
		held, err := f.holds(a, place)
		if err != nil {
			return err
		}
		if held {
			return fmt.Errorf("VF %s is in the network namespace of pod %s (UID %s), which has the same claim %s and still has its namespace, and an interface can be in one pod only: give each pod a claim of its own with a ResourceClaimTemplate, or share the VF in mode %s", a, place.Sandbox.Pod, place.Sandbox.Pod.UID, j.Claim, v1alpha1.VfModeRDMA)
		}
	}
	if err := f.takeBack(ctx, a, j, netns); err != nil {
		return fmt.Errorf("take VF %s back from pod %s: %w", a, place.Sandbox.Pod, err)
	}
	return nil
}

// holds tells whether the network namespace of a place is still there and has
// the VF.
func (f *Family) holds(a topology.Address, place *vfstate.Place) (held bool, err error) {
	ns, err := f.openPlace(place)
	if err != nil || ns == nil {
		return false, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	if place.Interface != "" {
		link, err := linkOf(ns, a)
		return link != nil, err
	}
	return hasRDMA(ns, place)
}
