package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/selection"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Options say where the machine is. All but the times are mandatory.
type Options struct {
	// SysfsRoot is the host's sysfs, which is changed by Write alone.
	SysfsRoot string
	Write     vfio.Writer
	// Host is the host's network namespace.
	Host kernel.Namespace
	// Hold keeps a VF from being given to a claim until it is called back. It
	// is not free if a claim has it, or is about to.
	Hold func(ctx context.Context, vf topology.Address) (release func(), free bool, err error)
	// Done is called when a PF is finished for which Run did not wait to the
	// end.
	Done func()
	// Notes say which VFs were made here. None are kept without a folder.
	Notes Notes
	// Wait bounds the wait for drivers and interfaces of new VFs: 15 s if
	// zero. Limit bounds how long Run waits: 40 s if zero.
	Wait, Limit time.Duration
	// Retry is the time before a PF that failed is tried again: 5 s if zero.
	// It doubles with each failure, up to ten times as much.
	Retry time.Duration
}

// Provisioner sets PFs up. Its methods may be called concurrently.
type Provisioner struct {
	opts    Options
	drivers vfio.Bus

	mu  sync.Mutex
	pfs map[topology.Address]*progress
}

// progress is how far a PF is.
type progress struct {
	// running is closed when the work that goes on ends, and nil if none does.
	running chan struct{}
	since   time.Time
	// err is how the last attempt ended.
	err error
	// next is when to try again, after pause.
	next  time.Time
	pause time.Duration
}

// New returns a provisioner. It does nothing yet.
func New(opts Options) *Provisioner {
	for value, fallback := range map[*time.Duration]time.Duration{
		&opts.Wait: 15 * time.Second, &opts.Limit: 40 * time.Second, &opts.Retry: 5 * time.Second,
	} {
		if *value == 0 {
			*value = fallback
		}
	}
	return &Provisioner{opts: opts, drivers: vfio.New(opts.SysfsRoot, opts.Write), pfs: map[topology.Address]*progress{}}
}

// Run brings the PFs to what is wanted of them, and returns what is wrong with
// which. It is cheap where everything is as wanted already. Changed says that
// something was done, so that what was known of the PFs is no longer true.
func (p *Provisioner) Run(ctx context.Context, pfs []nic.PF, wants func(nic.PF) selection.Wanted) (changed bool, failed map[topology.Address]error) {
	p.forget(pfs)
	failed = make(map[topology.Address]error)
	started := make(map[topology.Address]chan struct{})
	for _, pf := range pfs {
		t := task{Provisioner: p, pf: pf, wanted: wants(pf)}
		wrong := t.check()
		running, err := p.start(ctx, t)
		if running != nil {
			started[pf.Address] = running
		}
		if err := errors.Join(wrong, err); err != nil {
			failed[pf.Address] = err
		}
	}
	limit := time.NewTimer(p.opts.Limit)
	defer limit.Stop()
	for address, running := range started {
		select {
		case <-running:
		case <-ctx.Done():
		case <-limit.C:
			limit.Reset(0)
		}
		if err := errors.Join(failed[address], p.outcome(address)); err != nil {
			failed[address] = err
		}
	}
	return len(started) > 0, failed
}

// forget drops what is known of PFs that are gone.
func (p *Provisioner) forget(there []nic.PF) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for address, state := range p.pfs {
		if state.running == nil && !slices.ContainsFunc(there, func(pf nic.PF) bool { return pf.Address == address }) {
			delete(p.pfs, address)
		}
	}
}

// start begins the work on a PF, if there is any, and it is time for it.
// Otherwise it returns how the last attempt ended.
func (p *Provisioner) start(ctx context.Context, t task) (chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.pfs[t.pf.Address]
	if state == nil {
		state = &progress{}
		p.pfs[t.pf.Address] = state
	}
	switch {
	case state.running != nil:
		return nil, state.stillRunning()
	case !t.needed():
		*state = progress{}
		return nil, nil
	case time.Now().Before(state.next):
		return nil, state.err
	}
	running := make(chan struct{})
	state.running, state.since = running, time.Now()
	// The work outlives a Run that does not wait to the end.
	ctx = context.WithoutCancel(ctx)
	go func() {
		err := t.do(ctx)
		p.finish(ctx, t.pf, err)
		close(running)
		if p.opts.Done != nil {
			p.opts.Done()
		}
	}()
	return running, nil
}

func (p *Provisioner) finish(ctx context.Context, pf nic.PF, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.pfs[pf.Address]
	state.running, state.err = nil, err
	if err == nil {
		*state = progress{}
		klog.FromContext(ctx).Info("PF is set up", "pf", pf.Name(), "pciAddress", pf.Address)
		return
	}
	state.pause = min(max(2*state.pause, p.opts.Retry), 10*p.opts.Retry)
	state.next = time.Now().Add(state.pause)
}

// outcome returns how the last attempt for a PF ended.
func (p *Provisioner) outcome(address topology.Address) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.pfs[address]
	if state.running != nil {
		return state.stillRunning()
	}
	return state.err
}

func (s *progress) stillRunning() error {
	return errors.Join(fmt.Errorf("setting it up has taken %s so far and goes on: the kernel's log may tell what its driver waits for", time.Since(s.since).Round(time.Second)), s.err)
}

// NextRetry returns when a PF that failed is to be tried again. The zero time
// means that none failed.
func (p *Provisioner) NextRetry() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var next time.Time
	for _, state := range p.pfs {
		if state.running == nil && state.err != nil && (next.IsZero() || state.next.Before(next)) {
			next = state.next
		}
	}
	return next
}
