package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	metadatav1alpha1 "k8s.io/dynamic-resource-allocation/api/metadata/v1alpha1"
	metadatav1beta1 "k8s.io/dynamic-resource-allocation/api/metadata/v1beta1"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/cdifiles"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstatus"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/metadatafiles"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/nodelabels"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/pairs"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/taintrules"
)

const (
	// abandonedInterval is how often claims are checked for being abandoned.
	abandonedInterval = time.Minute
	// endWait is how long processes that have been told to end may take to be
	// gone from the process table.
	endWait = 5 * time.Second
)

// ProcessTable tells which pods have processes on this node.
type ProcessTable interface {
	// Running returns those of the pods that have at least one process.
	Running(pods []types.UID) ([]types.UID, error)
}

// Options are what a [Driver] needs. All are mandatory, except PodUID, Pairs,
// the durations, and AttachHook where no family is an [Attacher].
type Options struct {
	DriverName string
	NodeName   string
	// PodUID is the UID of the pod that this process runs in. It lets the next
	// version start while this one still serves. Empty where there is no pod.
	PodUID types.UID
	// DataDir is the driver's folder below kubelet's plugins folder, and
	// RegistrarDir the folder in which kubelet looks for plugins. Both are the
	// same path on the host and here.
	DataDir      string
	RegistrarDir string
	// CDIDir is where the container runtime finds CDI specs.
	CDIDir string
	// BootID tells one boot of the machine from another.
	BootID     string
	KubeClient kubernetes.Interface
	Processes  ProcessTable
	// Families are the kinds of hardware to serve, the ones whose devices
	// should be allocated first in front.
	Families []Family
	// Pairs says which GPUs are given together with a VF. Nil means none.
	Pairs *pairs.Options
	// Managed says which devices the controller gives to claims.
	Managed v1alpha1.ManagedConfig
	// Reserve keeps devices from claims. Nil means none.
	Reserve Reserve
	// SetIBHCA tells NCCL in containers which RDMA devices to use.
	SetIBHCA bool
	Metrics  *Metrics
	// NodeLabels labels the node with what is found. Nil means none.
	NodeLabels *nodelabels.Keeper
	// AttachHook is the path on the host of the program attach-hook, which the
	// caller has installed there with hostbin. It is written into CDI specs,
	// so it must not change from release to release.
	AttachHook string
	// AttachWait is how long a container that is about to start waits for its
	// devices to be attached, the time that no instance of the plugin runs
	// included. Default 60 s.
	AttachWait time.Duration
	// ReleaseWait bounds the wait for a device that another claim still
	// holds. Default 40 s: kubelet gives up on a call after 45 s.
	ReleaseWait time.Duration
	// EndWait bounds the wait, when a claim is to be unprepared, for processes
	// that still use it. Default 5 s.
	EndWait time.Duration
	// AbandonedInterval is how often claims that nobody unprepares are looked
	// for. Default 1 min.
	AbandonedInterval time.Duration
	// Removing takes the driver off its node: it publishes nothing, serves the
	// claims that are there to their end, and tells [Driver.Emptied].
	Removing bool
	// RemovalSettle is how long nothing may have been in the way before the node
	// counts as empty. Default 5 s.
	RemovalSettle time.Duration
}

// Driver serves one node.
type Driver struct {
	options   Options
	pool      string
	decoder   *v1alpha1.Decoder
	inventory *inventory
	store     *claimstore.Store
	cdi       *cdifiles.Files
	metadata  *metadatafiles.Files
	status    status
	recovery  recovery
	tainting  *feature
	counting  *feature
	handovers *handovers
	ruled     ruled
	// rejoin tells that claims have got or given back parts of composites.
	rejoin signal
	// republish tells that the slices are to be written anew though the
	// hardware has not changed.
	republish signal

	attachSeconds *prometheus.HistogramVec

	// statuses is nil where nothing is attached.
	statuses *claimstatus.Writer
	// updateMetadata is nil as long as the plugin's services are not started.
	updateMetadata updateMetadata
	removal        removal

	fatal context.CancelCauseFunc

	// used is told of every call of kubelet.
	used signal

	// calls is held for reading by every call of kubelet, and for writing by
	// the end of Run: a call that goes on while the process stops must not
	// find its locks gone, which the next instance relies on.
	calls sync.RWMutex
}

// New returns a driver with its state recovered from disk. It serves nobody
// before [Driver.Run].
func New(ctx context.Context, options Options) (*Driver, error) {
	options.setTimes()
	if options.Reserve == nil {
		options.Reserve = noReserve{}
	}
	if err := checkAttachHook(options); err != nil {
		return nil, err
	}
	inv, err := newInventory(options.Families, options.Metrics)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(options.DataDir, 0o750); err != nil {
		return nil, fmt.Errorf("create the plugin's data folder: %w", err)
	}
	owners, err := newHandovers(options)
	if err != nil {
		return nil, err
	}
	store, err := claimstore.Open(ctx, options.DataDir)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		options:   options,
		pool:      PoolName(options.NodeName, options.DriverName),
		decoder:   v1alpha1.NewDecoder(),
		inventory: inv,
		store:     store,
		cdi:       cdifiles.New(options.CDIDir, options.DriverName),
		metadata:  metadatafiles.New(options.DataDir, store),
		tainting:  newTainting(),
		counting:  newCounting(),
		handovers: owners,
		used:      newSignal(),
		rejoin:    newSignal(),
		republish: newSignal(),
	}
	inv.pairs, inv.held, inv.tell = options.Pairs, d.heldThings, options.Reserve.Found
	if options.Pairs != nil {
		d.ruled.rules = taintrules.New(options.KubeClient, options.DriverName, d.pool)
	}
	if options.AttachHook != "" {
		d.statuses = claimstatus.New(options.DriverName, options.KubeClient, store)
	}
	d.attachSeconds = newAttachSeconds()
	if err := faultpoint.At(faultpoint.StartStoreOpened); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if err := options.Metrics.registry.Register(newPreparedCollector(store)); err != nil {
		return nil, errors.Join(fmt.Errorf("register the metric of prepared devices: %w", err), store.Close())
	}
	if err := options.Metrics.registry.Register(d.attachSeconds); err != nil {
		return nil, errors.Join(fmt.Errorf("register the metric of attachments: %w", err), store.Close())
	}
	if err := d.recovered(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Nothing can be prepared yet")
	}
	if err := faultpoint.At(faultpoint.StartRecovered); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return d, nil
}

// setTimes gives the times that are zero their defaults.
func (o *Options) setTimes() {
	interval := abandonedInterval
	if o.Removing {
		interval = removalAbandoned
	}
	for value, fallback := range map[*time.Duration]time.Duration{
		&o.ReleaseWait: releaseWait, &o.EndWait: endWait, &o.AttachWait: attachWait,
		&o.AbandonedInterval: interval, &o.RemovalSettle: removalSettle,
	} {
		if *value == 0 {
			*value = fallback
		}
	}
}

// Run publishes the node's devices and serves kubelet until ctx is done, or
// until the plugin cannot go on, which is an error. What was prepared stays
// prepared.
func (d *Driver) Run(ctx context.Context) (err error) {
	defer func() {
		d.calls.Lock()
		defer d.calls.Unlock()
		err = errors.Join(err, d.store.Close(), d.handovers.Close())
	}()
	stop := ctx
	ctx, d.fatal = context.WithCancelCause(ctx)
	defer d.fatal(nil)

	if err := d.removeStaleSockets(ctx); err != nil {
		return err
	}
	if err := d.look(ctx); err != nil {
		return err
	}
	if err := faultpoint.At(faultpoint.StartDiscovered); err != nil {
		return err
	}
	changed, looked, registered := newSignal(), newSignal(), newSignal()
	helper, err := kubeletplugin.Start(ctx, d,
		kubeletplugin.DriverName(d.options.DriverName),
		kubeletplugin.NodeName(d.options.NodeName),
		kubeletplugin.KubeClient(d.options.KubeClient),
		kubeletplugin.PluginDataDirectoryPath(d.options.DataDir),
		kubeletplugin.RegistrarDirectoryPath(d.options.RegistrarDir),
		kubeletplugin.RollingUpdate(d.options.PodUID),
		kubeletplugin.Serialize(false), // claims have locks of their own
		kubeletplugin.HealthService(true),
		kubeletplugin.GRPCInterceptor(onRegistration(registered.send)),
		kubeletplugin.EnableDeviceMetadata(true, []schema.GroupVersion{metadatav1beta1.SchemeGroupVersion, metadatav1alpha1.SchemeGroupVersion}),
		kubeletplugin.CDIDirectory(d.options.CDIDir),
		kubeletplugin.MetadataFileOps(d.metadata.Operations()),
	)
	if err != nil {
		return fmt.Errorf("start the plugin's services: %w", err)
	}
	d.status.started(helper)
	defer helper.Stop()
	d.updateMetadata = helper.UpdateRequestMetadata
	stopAttaching, err := d.serveAttach(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAttaching()) }()
	if err := faultpoint.At(faultpoint.StartServing); err != nil {
		return err
	}

	looked.send()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer d.fatal(nil) // before the wait: ends what is waited for
	for _, f := range d.options.Families {
		wg.Go(func() {
			f.Watch(ctx, changed.send)
		})
	}
	wg.Go(func() { d.lookOnChange(ctx, changed, looked) })
	wg.Go(func() { d.releaseAbandoned(ctx, d.options.AbandonedInterval) })
	wg.Go(func() { giveMemoryBack(ctx, d.used) })
	wg.Go(func() { d.handovers.labels.follow(ctx, d.republish.send) })
	wg.Go(func() { d.ruled.follow(ctx, d.republish.send) })
	wg.Go(func() { d.options.NodeLabels.Run(ctx) })
	wg.Go(func() { d.options.Reserve.Watch(ctx, d.republish.send) })
	if err := d.publishOnChange(ctx, helper, looked, registered); err != nil && stop.Err() == nil {
		return err
	}
	return nil // what fails because we stop is no failure
}

// lookOnChange looks at the hardware whenever it has changed. It does not wait for
// what publishes: that may wait for the API server, and others than claims are
// told of the devices, too.
func (d *Driver) lookOnChange(ctx context.Context, changed, looked signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		if err := d.look(ctx); err != nil {
			d.fatal(err)
			return
		}
		looked.send()
	}
}

// publishOnChange writes the slices whenever the hardware was looked at, and again
// when kubelet may have deleted them.
func (d *Driver) publishOnChange(ctx context.Context, helper *kubeletplugin.Helper, looked, registered signal) error {
	restore := newRestoring()
	defer restore.ticker.Stop()
	handover := time.NewTimer(0)
	defer handover.Stop()
	handover.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-registered:
			restore.start()
			continue
		case <-restore.ticker.C:
			restore.tick()
		case <-handover.C:
		case <-d.republish:
		case <-d.rejoin:
			if !d.inventory.rejoin(ctx) {
				continue
			}
		case <-looked:
			klog.FromContext(ctx).Info("Publishing devices", "pool", d.pool, "devices", len(d.offered(d.inventory.devices())))
			d.status.publishing()
		}
		next, err := d.publish(ctx, helper)
		if err != nil {
			return err
		}
		if next > 0 {
			handover.Reset(next)
		}
	}
}

// publish hands what is to be published to the helper, which writes what has
// changed. It returns when devices that change their allocator are to be looked
// after, and zero if none does.
func (d *Driver) publish(ctx context.Context, helper *kubeletplugin.Helper) (time.Duration, error) {
	if d.options.Removing {
		if err := helper.PublishResources(ctx, nothingPublished(d.pool)); err != nil {
			return 0, fmt.Errorf("take the devices out of the API: %w", err)
		}
		return 0, nil
	}
	content := d.inventory.pool()
	all := len(content.devices)
	content.devices = d.offered(content.devices)
	if all > 0 && len(content.devices) == 0 && !d.slicesServed(ctx) {
		return 0, nil
	}
	wanted, err := d.wantedAllocators(ctx, content)
	if err != nil {
		d.status.failed(err)
		return 0, nil // until the next tick
	}
	content.managed = wanted.needTaints
	content, kept, err := d.withRules(ctx, content)
	if err != nil {
		d.status.failed(err)
		return 0, nil
	}
	var next time.Duration
	if content.allocators, next, err = d.allocators(ctx, wanted, kept); err != nil {
		d.status.failed(err)
		return 0, nil
	}
	d.options.Metrics.withheld(content.devices, kept)
	if err := helper.PublishResources(ctx, resources(d.pool, content, kept)); err != nil {
		return 0, fmt.Errorf("publish the devices: %w", err)
	}
	return next, nil
}

// signal tells that something is due. Sending it again before it was received
// changes nothing.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) send() {
	select {
	case s <- struct{}{}:
	default: // due already
	}
}

// HandleError is told what goes wrong in the background of the kubeletplugin
// helper.
func (d *Driver) HandleError(ctx context.Context, err error, msg string) {
	if ctx.Err() != nil {
		return // stopping
	}
	d.options.Metrics.publishErrors.Inc()
	if d.fieldsDropped(ctx, err) {
		d.republish.send()
		return
	}
	d.status.failed(err)
	if errors.Is(err, kubeletplugin.ErrRecoverable) {
		klog.FromContext(ctx).Error(err, "Publishing failed, it is tried again: "+msg)
		return
	}
	d.fatal(fmt.Errorf("%s: %w", msg, err))
}
