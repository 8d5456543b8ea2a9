package uninstall

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/uninstall/workload"
)

const (
	// poll is how often is looked whether a step is done.
	poll = time.Second
	// restoreTimeout bounds putting back what was changed.
	restoreTimeout = 30 * time.Second
)

// Options say what is installed. Client, DriverName and Namespace are mandatory.
type Options struct {
	Client     kubernetes.Interface
	DriverName string
	// Namespace is the one in which all that is named here is.
	Namespace string
	// Plugin is the DaemonSet of the kubelet plugin, PluginContainer the
	// container that runs it.
	Plugin, PluginContainer string
	// Resources are the extended resources that the plugin serves without claims.
	Resources []string
	// Controller is the Deployment of the controller, and Lease the lease of its
	// leader. PlanLabel marks ConfigMaps that the controller made.
	Controller, Lease, PlanLabel string
	// RegistryTrust is the DaemonSet of registry-trust, RegistryTrustContainer
	// the container that runs it. Empty where there is none.
	RegistryTrust, RegistryTrustContainer string
	// SkipUnreachableNodes leaves nodes that are not ready as they are, but for
	// their ResourceSlices.
	SkipUnreachableNodes bool
	// Undo are further steps, to be done when the controller has stopped.
	Undo []Step
	// Poll is how often is looked whether a step is done. Default 1 s.
	Poll time.Duration
}

// Step is something that is to be undone in the cluster. It may be repeated.
type Step struct {
	// Name says what is done, as in "restore the affinity of DaemonSets".
	Name string
	Do   func(ctx context.Context) error
}

// uninstaller is one attempt.
type uninstaller struct {
	Options
	plugin, registryTrust workload.DaemonSet
	controller            workload.Deployment
	// changed are the workloads to be put back if this fails.
	changed []interface {
		Restore(ctx context.Context) error
	}
	// skipped are the nodes that are left as they are.
	skipped map[string]bool
}

// Run takes the driver out of the cluster, up to the objects that were
// installed, which are to be deleted afterwards. If it fails, it has the driver
// serve as before.
func Run(ctx context.Context, o Options) error {
	if o.Poll == 0 {
		o.Poll = poll
	}
	u := &uninstaller{
		Options: o, skipped: map[string]bool{},
		plugin: workload.DaemonSet{
			Client: o.Client, Namespace: o.Namespace, Name: o.Plugin, Container: o.PluginContainer,
			Args: func(usual []string) []string { return append([]string{"remove", "--stay"}, usual...) },
		},
		registryTrust: workload.DaemonSet{
			Client: o.Client, Namespace: o.Namespace, Name: o.RegistryTrust, Container: o.RegistryTrustContainer,
			Args: registryTrustArgs,
		},
		controller: workload.Deployment{Client: o.Client, Namespace: o.Namespace, Name: o.Controller},
	}
	err := u.run(ctx)
	if err == nil {
		klog.FromContext(ctx).Info("Nothing is left of the driver but the objects that were installed")
		return nil
	}
	return errors.Join(err, u.restore(ctx))
}

func (u *uninstaller) run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	for _, step := range append([]Step{
		{"see that no claim has devices", u.guard},
		{"see that all nodes can be reached", u.reachable},
		{"have the plugin take itself off the nodes", u.offNodes},
		{"see that no claim got devices meanwhile", u.guard},
		{"stop the controller", u.stopController},
	}, append(u.Undo,
		Step{"have registry-trust remove what it wrote", u.untrust},
		Step{"remove what the controller has made", u.removeMade},
	)...) {
		start := time.Now()
		if err := step.Do(ctx); err != nil {
			var inUse *InUseError
			if errors.As(err, &inUse) {
				return inUse // says all
			}
			return fmt.Errorf("%s: %w", step.Name, err)
		}
		// Helm shows all that is logged in one line.
		logger.V(2).Info("Done", "step", step.Name, "duration", time.Since(start).Round(time.Millisecond))
	}
	return nil
}

// restore puts back what was changed, last first, also when time is up.
func (u *uninstaller) restore(ctx context.Context) error {
	if len(u.changed) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTimeout)
	defer cancel()
	var errs []error
	for n := range u.changed {
		errs = append(errs, u.changed[len(u.changed)-1-n].Restore(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the driver does not serve as before: %w: apply what was installed anew", err)
	}
	klog.FromContext(ctx).Info("The driver serves as before: what had been changed is put back")
	return nil
}

// stopController returns when nothing does anew what is undone next.
func (u *uninstaller) stopController(ctx context.Context) error {
	if u.Controller == "" {
		return nil
	}
	found, err := u.controller.Stop(ctx)
	if found {
		u.changed = append(u.changed, u.controller)
	}
	if err != nil {
		return err
	}
	return u.await(ctx, func(ctx context.Context) (string, error) {
		stopped, err := u.controller.Stopped(ctx)
		if stopped || err != nil {
			return "", err
		}
		return "pods of Deployment " + u.Namespace + "/" + u.Controller + " are left", nil
	})
}

// await returns when missing says that nothing is missing. What fails is tried
// again until time is up: the API server may be away for a while. Claims that are
// in use are not waited for.
func (u *uninstaller) await(ctx context.Context, missing func(context.Context) (string, error)) error {
	for {
		what, err := missing(ctx)
		var inUse *InUseError
		if errors.As(err, &inUse) || err == nil && what == "" {
			return err
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = errors.New(what)
			}
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-time.After(u.Poll):
		}
	}
}
