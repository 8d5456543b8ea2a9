package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// Plugin serves the extended resources of one node.
type Plugin struct {
	options Options
	store   *claimstore.Store
	metrics *metrics
	specs   *specs
	infos   *infos

	// stepping lets one change of what is held be made at a time. Who answers
	// kubelet does not wait for it, and nobody waits for an answer of the API
	// server or kubelet while having it.
	stepping sync.Mutex
	// steps counts them.
	steps int
	// clearSince is when the API first did not offer a thing to claims (any more).
	clearSince map[string]time.Time
	// told is what was logged of devices that wait for their owner, and foreign of
	// those that pods have although they are somebody else's.
	told, foreign map[string]string
	// unanswered tells that the API server did not answer when it was asked last.
	unanswered bool
	// asked tells that kubelet has said who uses what, and silence is why it does
	// not.
	asked   bool
	silence string
	// written tells that the files for containers were those of the states.
	written bool

	mu    sync.Mutex
	found map[string]device.Inventory
	all   items
	// looks counts what was found, so that what containers need is asked for
	// anew.
	looks int
	// held are the things that the device plugin holds.
	held map[string]claimstore.Holding
	// broken are those whose holdings cannot be read any more, and doubtful those
	// whose holdings could not be read before kubelet was heard.
	broken   map[string]claimstore.Holding
	doubtful map[string]bool
	heard    bool
	// forgotten are the things of pods of which kubelet did not know when it was asked
	// last.
	forgotten map[string]forgetting
	// states are those of the wanted devices, by ID.
	states map[string]state
	// prepared is what their families last said of devices, by ID, and asked how
	// often they were asked.
	prepared map[string]preparation
	asks     int
	// preparing are the preparations under way by who has the device, and late is of
	// whom some took too long.
	preparing map[types.UID]int
	late      map[types.UID]bool
	// reasons are why devices that are to be served here are not held, by ID.
	reasons map[string]string
	// updated is closed when states change, and news when it is another thing
	// that claims may be given.
	updated chan struct{}
	news    chan struct{}
	// due has the next step begin at once, and lacking has the API server asked for
	// what is not held.
	due, lacking chan struct{}
	// servers are set once Run has begun.
	servers []*server
}

// state is what is known of a device that is to be served here.
type state struct {
	// held tells that the device plugin has it.
	held bool
	// problem is why it is not healthy; empty if it is.
	problem string
}

// preparation is what a family said that containers need for a device, or why that
// cannot be told.
type preparation struct {
	// holder tells where the device was then.
	holder types.UID
	edits  device.Edits
	err    error
	// look and number are the last look, and how often families had been asked,
	// when it was asked.
	look, number int
}

// New returns the plugin with what it holds read from disk, and what kubelet says
// of pods that have devices already. It serves nobody before [Plugin.Run].
func New(ctx context.Context, options Options) (*Plugin, error) {
	if options.Interval == 0 {
		options.Interval = lookEvery
	}
	if options.LeftOverWait == 0 {
		options.LeftOverWait = leftOverWait
	}
	if options.PrepareWithin == 0 {
		options.PrepareWithin = prepareWithin
	}
	if options.CommitWait == 0 {
		options.CommitWait = commitWait
	}
	store, err := claimstore.Open(ctx, options.DataDir)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(options.Registry)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	p := &Plugin{
		options:    options,
		store:      store,
		metrics:    m,
		specs:      newSpecs(options.CDIDir, options.DriverName),
		infos:      newInfos(options.DeviceInfoDir),
		clearSince: map[string]time.Time{},
		told:       map[string]string{},
		foreign:    map[string]string{},
		found:      map[string]device.Inventory{},
		states:     map[string]state{},
		prepared:   map[string]preparation{},
		preparing:  map[types.UID]int{},
		late:       map[types.UID]bool{},
		broken:     map[string]claimstore.Holding{},
		doubtful:   map[string]bool{},
		updated:    make(chan struct{}),
		news:       make(chan struct{}, 1),
		due:        make(chan struct{}, 1),
		lacking:    make(chan struct{}, 1),
	}
	if err := p.readHeld(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return p, nil
}

// Found is told what a family has found, whenever something looks. It returns
// when devices that pods have already are held for them, so that claims are not
// offered those.
func (p *Plugin) Found(ctx context.Context, family string, found device.Inventory, err error) {
	n := slices.IndexFunc(p.options.Families, func(f Family) bool { return f.Name() == family })
	if n < 0 {
		return
	}
	p.mu.Lock()
	_, before := p.found[family]
	if err != nil {
		// What cannot be seen now is not gone: containers may be using it.
		found = withProblem(p.found[family], "FamilyFailed", err)
	}
	p.found[family] = found
	p.all = p.list()
	p.looks++
	p.mu.Unlock()
	if !before {
		p.adopt(ctx)
	}
	signal(p.due)
}

// withProblem returns an inventory whose devices all have a problem.
func withProblem(found device.Inventory, reason string, err error) device.Inventory {
	found.Devices = slices.Clone(found.Devices)
	for n := range found.Devices {
		found.Devices[n].Problems = []device.Problem{{Reason: reason, Message: err.Error()}}
	}
	return found
}

// list returns all devices, in the order of the families.
func (p *Plugin) list() items {
	var all items
	for _, f := range p.options.Families {
		for _, d := range p.found[f.Name()].Devices {
			i := &item{Device: d, family: f, id: idOf(d), wanted: slices.Contains(p.options.Kinds, d.Kind)}
			if n := slices.IndexFunc(p.options.Resources, func(r Resource) bool { return r.Kind == d.Kind && (r.Selects == nil || r.Selects(d)) }); n >= 0 && i.wanted {
				i.resource = &p.options.Resources[n]
			}
			all = append(all, i)
		}
	}
	return all
}

// Reserves tells whether claims are not to be offered a device: one that is to be
// served here, or is, or may be, still used by a pod that has it from here.
func (p *Plugin) Reserves(d device.Device) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, thing := range d.Occupies {
		if _, held := p.held[thing]; held || p.doubtful[thing] {
			return true
		}
		if i := p.all.occupying(thing); i != nil && i.wanted {
			return true
		}
	}
	return false
}

// Watch calls changed whenever Reserves may answer differently, until ctx is
// done.
func (p *Plugin) Watch(ctx context.Context, changed func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.news:
			changed()
		}
	}
}

// Run serves kubelet until ctx is done, or until that cannot go on, which is an
// error. What pods have stays theirs.
func (p *Plugin) Run(ctx context.Context, published Published) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		err = errors.Join(err, p.store.Close())
	}()
	servers, err := p.newServers(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.servers = servers
	p.mu.Unlock()
	failed := make(chan error, len(servers))
	serve := sync.OnceFunc(func() {
		for _, s := range servers {
			wg.Go(func() {
				if err := s.run(ctx); err != nil && ctx.Err() == nil {
					failed <- fmt.Errorf("serve %s: %w", s.resource.Name, err)
				}
			})
		}
	})
	wg.Go(func() { p.acquireWhenDue(ctx, published) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-p.due:
		case <-timer.C:
		}
		if p.looking() {
			continue // until devices are found
		}
		p.step(ctx)
		serve() // now that it is known what there is
		timer.Reset(p.options.Interval)
	}
}

// Ready returns nil once kubelet has been told of all resources. Otherwise it says
// what is missing.
func (p *Plugin) Ready(context.Context) error {
	if len(p.options.Kinds) == 0 {
		return nil
	}
	p.mu.Lock()
	servers := p.servers
	p.mu.Unlock()
	if len(servers) == 0 {
		return errors.New("the device plugin is not started yet")
	}
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.ready())
	}
	return errors.Join(errs...)
}

// looking tells that not all families have said yet what there is.
func (p *Plugin) looking() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.found) < len(p.options.Families)
}

// idle tells that there is nothing to look after: all is for claims, kubelet has said
// that no pod has any of it, and no file for containers is left. Another instance,
// which serves kubelet until it ends, may still take a device for a moment.
func (p *Plugin) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked && p.written && len(p.options.Kinds) == 0 && len(p.held) == 0 && len(p.states) == 0
}

func (p *Plugin) items() items {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// holds tells whether the device plugin has all of a device.
func (p *Plugin) holds(i *item) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hasAll(i)
}

// hasAll is holds for who has the lock.
func (p *Plugin) hasAll(i *item) bool {
	for _, thing := range i.Occupies {
		if h, ok := p.held[thing]; !ok || h.Claim.UID != i.holder() {
			return false
		}
	}
	return true
}

// signal tells that something is due. Sending it again before it was received
// changes nothing.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
