package driver

import (
	"context"
	"fmt"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
)

// claimStatuses writes into the status of claims what has become of their
// devices, for people and other controllers to read. It happens behind
// everything else: an API server that is silent holds nobody up.
//
// What is written is read from the claim's record at that moment, so the
// latest always wins, whichever instance of the plugin writes.
type claimStatuses struct {
	driver *Driver
	queue  workqueue.TypedRateLimitingInterface[types.UID]

	mu sync.Mutex
	// waiting are the claims that are still to be written, with why their
	// last attachment failed or was not tried, or nil.
	waiting map[types.UID]*attachFailure
}

// attachFailure is an attachment that has failed, or that nobody has asked for.
type attachFailure struct {
	// unused is set where no container has asked for the devices.
	unused bool
	// family and device are empty where it was no device's fault.
	family, device string
	message        string
}

func newClaimStatuses(d *Driver) *claimStatuses {
	return &claimStatuses{
		driver:  d,
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](firstRetry, lastRetry)),
		waiting: map[types.UID]*attachFailure{},
	}
}

// run writes until ctx is done, beginning with all that is attached.
func (c *claimStatuses) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.queue.ShutDown()
	for range statusWorkers {
		wg.Go(func() {
			for c.writeNext(ctx) {
			}
		})
	}
	uids, err := c.driver.store.Claims()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot look for claims whose status is to be written")
	}
	for _, uid := range uids {
		if record, err := c.driver.store.Load(uid); err == nil && record != nil && hasNews(record) {
			c.attached(ctx, uid)
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
	return len(record.Alignment) > 0 && !mustAttach(record)
}

// prepared has the status of a claim written with what is known when it is
// prepared.
func (c *claimStatuses) prepared(ctx context.Context, uid types.UID) { c.add(ctx, uid, nil) }

// attached has the status of a claim written whose devices are attached.
func (c *claimStatuses) attached(ctx context.Context, uid types.UID) { c.add(ctx, uid, nil) }

// failed has the status of a claim written whose devices are not attached.
func (c *claimStatuses) failed(ctx context.Context, uid types.UID, err error) {
	c.add(ctx, uid, newAttachFailure(err))
}

func (c *claimStatuses) add(ctx context.Context, uid types.UID, failure *attachFailure) {
	c.mu.Lock()
	waits, known := c.waiting[uid]
	if waits != nil && failure != nil && failure.unused {
		c.mu.Unlock()
		return // what waits says as much, or more
	}
	full := !known && len(c.waiting) >= maxStatuses
	if !full {
		c.waiting[uid] = failure
	}
	c.mu.Unlock()
	if full {
		klog.FromContext(ctx).Info("The status of a claim is not written: too many wait for the API server", "claimUID", uid, "waiting", maxStatuses)
		return
	}
	c.queue.Forget(uid) // news is not punished for earlier failures
	c.queue.Add(uid)
}

func (c *claimStatuses) writeNext(ctx context.Context) bool {
	uid, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(uid)
	c.mu.Lock()
	failure := c.waiting[uid]
	c.mu.Unlock()
	err := c.write(ctx, uid, failure)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return true
	case isFinal(err):
		klog.FromContext(ctx).Error(err, "The status of a claim cannot be written", "claimUID", uid)
	default:
		klog.FromContext(ctx).Error(err, "The status of a claim is not written yet, it is tried again", "claimUID", uid, "tries", c.queue.NumRequeues(uid)+1)
		c.queue.AddRateLimited(uid)
		return true
	}
	c.queue.Forget(uid)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[uid] == failure { // no news meanwhile
		delete(c.waiting, uid)
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
func (c *claimStatuses) write(ctx context.Context, uid types.UID, failure *attachFailure) error {
	record, err := c.driver.store.Load(uid)
	if err != nil || record == nil {
		return nil //nolint:nilerr // an unreadable record is dealt with by whoever has the claim's lock
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	claims := c.driver.options.KubeClient.ResourceV1().ResourceClaims(record.Claim.Namespace)
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
	if failure != nil && failure.unused && len(record.Attached) == 0 && c.driver.saysWhy(claim) {
		return nil
	}
	desired := c.driver.deviceStatuses(record, failure, claim)
	if len(desired) == 0 || c.driver.hasStatuses(claim, desired) {
		return nil
	}
	options := metav1.ApplyOptions{FieldManager: c.driver.options.DriverName, Force: true}
	_, err = claims.ApplyStatus(ctx, claimApplyConfiguration(claim, desired), options)
	if rewritesAllocation(err) {
		_, err = claims.UpdateStatus(ctx, c.driver.withStatuses(claim, desired), metav1.UpdateOptions{FieldManager: c.driver.options.DriverName})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the status of the devices of claim %s: %w", record.Claim, err)
	}
	return nil
}

// ownStatus returns what the claim's status says of a device, or nil.
func (d *Driver) ownStatus(claim *resourceapi.ResourceClaim, s deviceStatus) *resourceapi.AllocatedDeviceStatus {
	for n := range claim.Status.Devices {
		has := &claim.Status.Devices[n]
		if has.Driver == d.options.DriverName && s.is(has) {
			return has
		}
	}
	return nil
}
