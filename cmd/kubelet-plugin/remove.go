package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nickernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/monitoring"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov"
)

func newRemoveCommand() *cobra.Command {
	o := defaultOptions()
	stay := false
	command := &cobra.Command{
		Use:   "remove",
		Short: "Take the driver off this node",
		Long: `Takes this node's devices out of the API, serves the claims that it has until the
last of them has ended, and then removes everything that the driver has put on
this node: the virtual functions that it made, and its files. It takes the flags
that the plugin ran with. What it has removed, the plugin makes anew when it is
started again.`,
	}
	return o.command(command, func(ctx context.Context) error { return remove(ctx, o, stay) }, func(flags *pflag.FlagSet) {
		flags.BoolVar(&stay, "stay", stay, "stay, and be ready, after everything is removed, so that a DaemonSet that runs this shows when all nodes are done")
	})
}

// remove takes the driver off the node, and then waits for its end if it is
// told to.
func remove(ctx context.Context, o *options, stay bool) error {
	var p progress
	registry, err := monitoring.NewRegistry()
	if err != nil {
		return err
	}
	return monitoring.Beside(ctx, o.httpAddress, monitoring.Handler(registry, p.healthy, p.ready), func(ctx context.Context) error {
		if err := o.removeAll(ctx, registry, &p); err != nil {
			return err
		}
		klog.FromContext(ctx).Info("Nothing is left on this node of what the driver has put there")
		if stay {
			<-ctx.Done()
		}
		return nil
	})
}

func (o *options) removeAll(ctx context.Context, registry *prometheus.Registry, p *progress) error {
	belongings := driver.Belongings{DriverName: o.driverName, DataDir: o.dataDir(), RegistrarDir: o.registrarDir(), CDIDir: o.cdiRoot}
	there, err := belongings.Any()
	if err != nil {
		return err
	}
	if there {
		if err := o.emptyNode(ctx, registry, p); err != nil {
			return err
		}
	}
	if err := belongings.AwaitAlone(ctx); err != nil {
		return err
	}
	if err := o.removeNodeLabels(ctx); err != nil {
		return err
	}
	if there {
		if err := o.takeDown(ctx); err != nil {
			return err
		}
	}
	if err := belongings.Remove(); err != nil {
		return err
	}
	p.set(nil, true)
	return nil
}

// emptyNode runs the plugin, which publishes nothing, until no claim is left.
func (o *options) emptyNode(ctx context.Context, registry *prometheus.Registry, p *progress) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a, err := o.agent(ctx, registry, true)
	if err != nil {
		return err
	}
	p.set(a.Driver, false)
	var (
		wg     sync.WaitGroup
		runErr error
	)
	// Whichever ends first ends the other.
	wg.Go(func() {
		defer cancel()
		runErr = a.Run(ctx)
	})
	err = a.Emptied(ctx)
	cancel()
	wg.Wait()
	p.set(nil, false)
	return errors.Join(err, runErr)
}

// takeDown takes away the VFs that the plugin made, also if SR-IOV has been
// switched off since.
func (o *options) takeDown(ctx context.Context) error {
	simulated := o.simulate != "" && len(o.simulateGPUsAt) == 0
	notes := filepath.Join(o.dataDir(), sriov.NotesFolder)
	if simulated {
		notes = o.simulatedNICs()
	}
	// The host's network is only touched where there is something to take away:
	// a plugin without privileges cannot.
	if _, err := os.Stat(notes); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("look for virtual functions that the driver made: %w", err)
	}
	if simulated {
		return nickernel.Remove(o.netns())
	}
	n, err := o.node()
	if err != nil {
		return err
	}
	family, err := o.sriovFamily(ctx, n, nil)
	if err != nil {
		return err
	}
	return family.TakeDown(ctx)
}

// progress is how far the removal is, for the probes.
type progress struct {
	mu sync.Mutex
	// driver is nil before and after it serves.
	driver *driver.Driver
	done   bool
}

func (p *progress) set(d *driver.Driver, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.driver, p.done = d, done
}

func (p *progress) get() (*driver.Driver, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.driver, p.done
}

// healthy is whether claims that are still there are served.
func (p *progress) healthy(ctx context.Context) error {
	if d, _ := p.get(); d != nil {
		return d.Healthy(ctx)
	}
	return nil
}

// ready is when everything is removed.
func (p *progress) ready(context.Context) error {
	d, done := p.get()
	switch {
	case done:
		return nil
	case d != nil:
		return errors.Join(errors.New("the driver is not removed from this node yet"), d.InTheWay())
	}
	return errors.New("the driver is not removed from this node yet")
}
