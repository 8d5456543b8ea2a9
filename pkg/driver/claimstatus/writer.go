package claimstatus

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

const (
	// statusWorkers is how many claims' statuses are written at a time.
	statusWorkers = 2
	// maxStatuses bounds the claims whose status waits to be written. A node
	// has far fewer pods.
	maxStatuses = 1024
	// firstRetry and lastRetry are the shortest and the longest time after
	// which a write that failed is tried again.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 2 * time.Minute
	// apiTimeout bounds reading and writing one claim.
	apiTimeout = 5 * time.Second
)

// nothingStarted is said of devices that no container has asked for. That may be
// a mistake in the pod, or just take a while: nobody can tell from here.
const nothingStarted = "attached to no pod: no container of its pods has started with it yet. " +
	"If their images are there and their init containers have ended, see that a container lists the claim in resources.claims"

// Writer writes the statuses of the claims of one node. It is safe for concurrent
// use.
type Writer struct {
	driver string
	client kubernetes.Interface
	store  *claimstore.Store
	queue  workqueue.TypedRateLimitingInterface[types.UID]

	mu sync.Mutex
	// waiting are the claims that are still to be written, with why their
	// last attachment failed or was not tried, or nil.
	waiting map[types.UID]*attachFailure
}

// New returns a writer for the claims of a driver whose records are in store. It
// writes nothing before [Writer.Run].
func New(driver string, client kubernetes.Interface, store *claimstore.Store) *Writer {
	return &Writer{
		driver:  driver,
		client:  client,
		store:   store,
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](firstRetry, lastRetry)),
		waiting: map[types.UID]*attachFailure{},
	}
}

// Run writes until ctx is done, beginning with all that is attached.
func (w *Writer) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer w.queue.ShutDown()
	for range statusWorkers {
		wg.Go(func() {
			for w.writeNext(ctx) {
			}
		})
	}
	uids, err := w.store.Claims()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot look for claims whose status is to be written")
	}
	for _, uid := range uids {
		if record, err := w.store.Load(uid); err == nil && record != nil && hasNews(record) {
			w.Attached(ctx, uid)
		}
	}
	<-ctx.Done()
}

// hasNews tells whether a claim's status may lack something that its record
// says. Of one whose devices are still to be attached nothing is said before
// that is tried: it could wipe out why the last try failed.
func hasNews(record *claimstore.Record) bool {
	if len(record.Attached) > 0 {
		return true
	}
	return len(record.Alignment) > 0 && !record.MustAttach()
}

// Prepared has the status of a claim written with what is known when it is
// prepared.
func (w *Writer) Prepared(ctx context.Context, uid types.UID) { w.add(ctx, uid, nil) }

// Attached has the status of a claim written whose devices are attached.
func (w *Writer) Attached(ctx context.Context, uid types.UID) { w.add(ctx, uid, nil) }

// Failed has the status of a claim written whose devices are not attached. An error
// that wraps a [DeviceError] is told of that device alone.
func (w *Writer) Failed(ctx context.Context, uid types.UID, err error) {
	w.add(ctx, uid, newAttachFailure(err))
}

// Unused has it written that no container has asked for a claim's devices. Why an
// attachment has failed is worth more, and is left as it is.
func (w *Writer) Unused(ctx context.Context, uid types.UID) {
	w.add(ctx, uid, &attachFailure{unused: true, message: nothingStarted})
}

func (w *Writer) add(ctx context.Context, uid types.UID, failure *attachFailure) {
	w.mu.Lock()
	waits, known := w.waiting[uid]
	if waits != nil && failure != nil && failure.unused {
		w.mu.Unlock()
		return // what waits says as much, or more
	}
	full := !known && len(w.waiting) >= maxStatuses
	if !full {
		w.waiting[uid] = failure
	}
	w.mu.Unlock()
	if full {
		klog.FromContext(ctx).Info("The status of a claim is not written: too many wait for the API server", "claimUID", uid, "waiting", maxStatuses)
		return
	}
	w.queue.Forget(uid) // news is not punished for earlier failures
	w.queue.Add(uid)
}

func (w *Writer) writeNext(ctx context.Context) bool {
	uid, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(uid)
	w.mu.Lock()
	failure := w.waiting[uid]
	w.mu.Unlock()
	err := w.write(ctx, uid, failure)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return true
	case isFinal(err):
		klog.FromContext(ctx).Error(err, "The status of a claim cannot be written", "claimUID", uid)
	default:
		klog.FromContext(ctx).Error(err, "The status of a claim is not written yet, it is tried again", "claimUID", uid, "tries", w.queue.NumRequeues(uid)+1)
		w.queue.AddRateLimited(uid)
		return true
	}
	w.queue.Forget(uid)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting[uid] == failure { // no news meanwhile
		delete(w.waiting, uid)
	}
	return true
}

// isFinal tells whether trying again would lead to the same error. A permission
// that is lacking makes a status invalid too, and can be given any time.
func isFinal(err error) bool {
	return apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) ||
		apierrors.IsInvalid(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeForbidden)
}

// write brings the status of a claim up to date. A claim that has gone, here or
// in the API, needs none.
func (w *Writer) write(ctx context.Context, uid types.UID, failure *attachFailure) error {
	record, err := w.store.Load(uid)
	if err != nil || record == nil {
		return nil //nolint:nilerr // an unreadable record is dealt with by whoever has the claim's lock
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	claims := w.client.ResourceV1().ResourceClaims(record.Claim.Namespace)
	claim, err := claims.Get(ctx, record.Claim.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read claim %s: %w", record.Claim, err)
	}
	if claim.UID != uid || claim.Status.Allocation == nil {
		return nil
	}
	if failure != nil && failure.unused && len(record.Attached) == 0 && w.saysWhy(claim) {
		return nil
	}
	desired := w.deviceStatuses(record, failure, claim)
	if len(desired) == 0 || hasStatuses(claim, desired) {
		return nil
	}
	options := metav1.ApplyOptions{FieldManager: w.driver, Force: true}
	_, err = claims.ApplyStatus(ctx, claimApplyConfiguration(claim, desired), options)
	if rewritesAllocation(err) {
		_, err = claims.UpdateStatus(ctx, withStatuses(claim, desired), metav1.UpdateOptions{FieldManager: w.driver})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the status of the devices of claim %s: %w", record.Claim, err)
	}
	return nil
}

// saysWhy tells whether the claim's status says why a device could not be
// attached.
func (w *Writer) saysWhy(claim *resourceapi.ResourceClaim) bool {
	return slices.ContainsFunc(claim.Status.Devices, func(s resourceapi.AllocatedDeviceStatus) bool {
		return s.Driver == w.driver && meta.IsStatusConditionTrue(s.Conditions, conditionAttachFailed)
	})
}
