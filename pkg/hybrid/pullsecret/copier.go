package pullsecret

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// Retries after errors of the API double up to the longest.
const (
	firstRetry   = 50 * time.Millisecond
	longestRetry = 5 * time.Minute
)

// Options are what a [Copier] needs.
type Options struct {
	Client kubernetes.Interface
	// Namespace is that of the Secret which is copied.
	Namespace string
	Events    record.EventRecorder
	Metrics   *Metrics
}

// Copier copies a Secret and keeps the copies in step. It is safe for concurrent
// use.
type Copier struct {
	Options
	// changed has a value when there is a new configuration.
	changed chan struct{}

	mu       sync.Mutex
	config   *v1alpha1.PullSecretConfig
	selector labels.Selector
}

// New returns a copier that copies nothing yet.
func New(options Options) *Copier {
	return &Copier{Options: options, changed: make(chan struct{}, 1), config: &v1alpha1.PullSecretConfig{}, selector: labels.Nothing()}
}

// Configure says what is to be copied from now on. Copies in namespaces that are not
// chosen any more are removed, of the names that the configuration has. Nil removes
// the copies of the last name.
func (c *Copier) Configure(config *v1alpha1.PullSecretConfig) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if config == nil {
		config = &v1alpha1.PullSecretConfig{}
	}
	selector, err := metav1.LabelSelectorAsSelector(config.NamespaceSelector)
	if err != nil {
		return fmt.Errorf("pullSecret.namespaceSelector: %w", err)
	}
	// Those of a name that has just gone are removed, too.
	merged := *config
	merged.FormerNames = slices.Clone(config.FormerNames)
	for _, name := range namesOf(c.config) {
		if name != config.Name && !slices.Contains(merged.FormerNames, name) {
			merged.FormerNames = append(merged.FormerNames, name)
		}
	}
	c.config, c.selector = &merged, selector
	select {
	case c.changed <- struct{}{}:
	default:
	}
	return nil
}

// namesOf returns the names of all Secrets that may have copies.
func namesOf(config *v1alpha1.PullSecretConfig) []string {
	var names []string
	for _, name := range append([]string{config.Name}, config.FormerNames...) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// current returns the configuration, and whether a namespace is chosen by it.
func (c *Copier) current() (*v1alpha1.PullSecretConfig, func(*corev1.Namespace) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	config, selector := c.config, c.selector
	return config, func(n *corev1.Namespace) bool {
		return n.Name != c.Namespace && (slices.Contains(config.Namespaces, n.Name) || selector.Matches(labels.Set(n.Labels)))
	}
}

// Run copies until ctx is done. It can be called once.
func (c *Copier) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		config, _ := c.current()
		if err := c.runWith(ctx, namesOf(config)); err != nil {
			return err
		}
	}
	return nil
}

// runWith copies until ctx is done, or there are other names to watch.
func (c *Copier) runWith(ctx context.Context, names []string) error {
	ctx, cancel := context.WithCancel(ctx)
	r := newRound(c, names)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	synced, err := r.watch(ctx, &wg)
	if err != nil {
		return err
	}
	wg.Go(func() { r.work(ctx, synced) })
	defer r.queue.ShutDown()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
			if config, _ := c.current(); !slices.Equal(names, namesOf(config)) {
				return nil
			}
			for _, namespace := range r.namespaces.GetStore().ListKeys() {
				r.queue.Add(namespace)
			}
		}
	}
}

// round is the work with one set of names.
type round struct {
	*Copier
	names      []string
	namespaces toolscache.SharedIndexInformer
	// secrets has one informer for each name.
	secrets map[string]toolscache.SharedIndexInformer
	queue   workqueue.TypedRateLimitingInterface[string]
	teller  *teller
}

func newRound(c *Copier, names []string) *round {
	return &round{
		Copier: c, names: names, secrets: map[string]toolscache.SharedIndexInformer{}, teller: newTeller(c.Events),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, longestRetry)),
	}
}

// watch starts the watches of namespaces, and of Secrets of these names. Permission
// for Secrets of these names is enough for that.
func (r *round) watch(ctx context.Context, wg *sync.WaitGroup) ([]toolscache.InformerSynced, error) {
	core := r.Client.CoreV1().RESTClient()
	listWatch := func(resource string, options func(*metav1.ListOptions)) toolscache.ListerWatcher {
		return toolscache.ToListWatcherWithWatchListSemantics(toolscache.NewFilteredListWatchFromClient(core, resource, metav1.NamespaceAll, options), r.Client)
	}
	r.namespaces = toolscache.NewSharedIndexInformer(listWatch("namespaces", func(*metav1.ListOptions) {}), &corev1.Namespace{}, 0, nil)
	all := map[toolscache.SharedIndexInformer]func(any){r.namespaces: func(o any) {
		if namespace, ok := o.(*corev1.Namespace); ok {
			r.queue.Add(namespace.Name)
		}
	}}
	for _, name := range r.names {
		r.secrets[name] = toolscache.NewSharedIndexInformer(listWatch("secrets", func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		}), &corev1.Secret{}, 0, nil)
		all[r.secrets[name]] = r.secretChanged
	}
	var synced []toolscache.InformerSynced
	for informer, handle := range all {
		registration, err := informer.AddEventHandlerWithOptions(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    handle,
			UpdateFunc: func(_, now any) { handle(now) },
			DeleteFunc: func(o any) {
				if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
					o = last.Obj
				}
				handle(o)
			},
		}, toolscache.HandlerOptions{})
		if err != nil {
			return nil, fmt.Errorf("watch what pull secrets need: %w", err)
		}
		synced = append(synced, registration.HasSynced)
		wg.Go(func() { informer.RunWithContext(ctx) })
	}
	return synced, nil
}

func (r *round) secretChanged(o any) {
	secret, ok := o.(*corev1.Secret)
	if !ok {
		return
	}
	if secret.Namespace != r.Namespace {
		r.queue.Add(secret.Namespace)
		return
	}
	for _, namespace := range r.namespaces.GetStore().ListKeys() {
		r.queue.Add(namespace)
	}
}

func (r *round) work(ctx context.Context, synced []toolscache.InformerSynced) {
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return
	}
	for {
		namespace, down := r.queue.Get()
		if down {
			return
		}
		log := klog.FromContext(ctx).WithValues("namespace", namespace)
		err := r.look(klog.NewContext(ctx, log), namespace)
		switch {
		case err == nil || ctx.Err() != nil:
			r.queue.Forget(namespace)
		case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
			r.queue.AddRateLimited(namespace) // the watch is about to tell why
		default:
			log.Error(err, "A pull secret cannot be kept in step for now")
			r.tell(ctx, namespace, ReasonFailed, err)
			r.queue.AddRateLimited(namespace)
		}
		r.queue.Done(namespace)
	}
}
