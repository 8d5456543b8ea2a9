package claimwrite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

const (
	// AnnotationFreedUnused is on a claim whose devices were taken back because
	// no pod came for them. It says when, and goes with the next allocation,
	// which waits for a pod.
	AnnotationFreedUnused = "eks-hybrid-dra/freed-unused"
	// AnnotationUsed is on a claim whose pods have ended. It says when, and goes
	// with the next allocation, which waits for a pod.
	AnnotationUsed = "eks-hybrid-dra/used"
	// annotationFence is changed to be sure that no earlier write to the claim
	// can still be carried out.
	annotationFence = "eks-hybrid-dra/fence"
)

const (
	// timeout bounds one write.
	timeout = 10 * time.Second
	// allocateTimeout bounds the write of an allocation. It is shorter than the
	// least time in which a device changes hands, MinSettle of the API, so that
	// no write that was decided before comes after it.
	allocateTimeout = 4 * time.Second
)

// ErrUnknown is wrapped by errors after which nobody knows whether the claim was
// written: the answer was lost. [Writer.Settle] finds out.
var ErrUnknown = errors.New("it is not known whether the claim was written")

// Writer writes claims. Each write carries the resource version of what the
// decision was made on, so that it fails on a claim that has changed since.
type Writer struct {
	client kubernetes.Interface
	clock  clock.PassiveClock
}

// New returns a writer.
func New(client kubernetes.Interface, clock clock.PassiveClock) *Writer {
	return &Writer{client: client, clock: clock}
}

// Allocate gives the claim its devices, and reserves them for pods that no
// scheduler will reserve them for. The finalizer comes first: without it the
// claim could go while its devices are in use. An error that wraps [ErrUnknown]
// leaves open whether it was done; after any other it was not.
func (w *Writer) Allocate(ctx context.Context, claim *resourceapi.ResourceClaim, allocation *resourceapi.AllocationResult, reserve []resourceapi.ResourceClaimConsumerReference) (*resourceapi.ResourceClaim, error) {
	ctx, cancel := context.WithTimeout(ctx, allocateTimeout)
	defer cancel()
	next := claim.DeepCopy()
	waits := WaitsForPod(next)
	if !slices.Contains(next.Finalizers, resourceapi.Finalizer) || waits {
		if !slices.Contains(next.Finalizers, resourceapi.Finalizer) {
			next.Finalizers = append(next.Finalizers, resourceapi.Finalizer)
		}
		maps.DeleteFunc(next.Annotations, func(key, _ string) bool { return key == AnnotationFreedUnused || key == AnnotationUsed })
		var err error
		if next, err = w.client.ResourceV1().ResourceClaims(next.Namespace).Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return nil, wrapped(claim, "put the finalizer on", err)
		}
	}
	next.Status.Allocation = allocation.DeepCopy()
	// kube-scheduler would put it in later, into a field that cannot be changed
	// any more, and the pod would never start.
	next.Status.Allocation.AllocationTimestamp = &metav1.Time{Time: w.clock.Now()}
	next.Status.ReservedFor = append(next.Status.ReservedFor, reserve...)
	next, err := w.client.ResourceV1().ResourceClaims(next.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return nil, wrapped(claim, "write the allocation of", err)
	}
	return next, nil
}

// Free takes the devices back from a claim that nobody has reserved. The
// annotation, which may be empty, says why and that the next allocation waits
// for a pod; it is written first, so that a crash in between frees the claim
// again and does not allocate it again.
func (w *Writer) Free(ctx context.Context, claim *resourceapi.ResourceClaim, annotation string) (*resourceapi.ResourceClaim, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	next := claim.DeepCopy()
	if len(next.Status.ReservedFor) > 0 {
		return nil, fmt.Errorf("free claim %s/%s: it is reserved for %s %s", claim.Namespace, claim.Name,
			next.Status.ReservedFor[0].Resource, next.Status.ReservedFor[0].Name)
	}
	if annotation != "" && next.Annotations[annotation] == "" {
		var err error
		if next, err = w.annotate(ctx, next, annotation, w.clock.Now().UTC().Format(time.RFC3339)); err != nil {
			return nil, err
		}
	}
	next.Status.Allocation = nil
	next.Status.Devices = nil
	next, err := w.client.ResourceV1().ResourceClaims(next.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return nil, wrapped(claim, "take the allocation back from", err)
	}
	return next, nil
}

// WaitForPod notes on a claim that is not allocated that it has served its pods,
// and waits for another.
func (w *Writer) WaitForPod(ctx context.Context, claim *resourceapi.ResourceClaim) (*resourceapi.ResourceClaim, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return w.annotate(ctx, claim.DeepCopy(), AnnotationUsed, w.clock.Now().UTC().Format(time.RFC3339))
}

// WaitsForPod tells whether the claim is to be allocated only for a pod: it was
// freed, or has served its pods.
func WaitsForPod(claim *resourceapi.ResourceClaim) bool {
	return claim.Annotations[AnnotationFreedUnused] != "" || claim.Annotations[AnnotationUsed] != ""
}

// Settle makes sure of what became of a write whose answer was lost: it returns
// the claim as it is, and no earlier write can change it any more. Gone claims
// are nil.
func (w *Writer) Settle(ctx context.Context, written *resourceapi.ResourceClaim) (*resourceapi.ResourceClaim, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	claims := w.client.ResourceV1().ResourceClaims(written.Namespace)
	now, err := claims.Get(ctx, written.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && now.UID != written.UID {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("see what became of claim %s/%s: %w", written.Namespace, written.Name, err)
	}
	if now.Status.Allocation != nil {
		return now, nil
	}
	// Whatever is still under way carries this resource version, or an older
	// one.
	fenced, err := w.annotate(ctx, now, annotationFence, w.clock.Now().UTC().Format(time.RFC3339Nano))
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return fenced, err
}

func (w *Writer) annotate(ctx context.Context, claim *resourceapi.ResourceClaim, key, value string) (*resourceapi.ResourceClaim, error) {
	if claim.Annotations == nil {
		claim.Annotations = map[string]string{}
	}
	claim.Annotations[key] = value
	next, err := w.client.ResourceV1().ResourceClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
	if err != nil {
		return nil, wrapped(claim, "annotate", err)
	}
	return next, nil
}

func wrapped(claim *resourceapi.ResourceClaim, doing string, err error) error {
	err = fmt.Errorf("%s claim %s/%s: %w", doing, claim.Namespace, claim.Name, err)
	if refused(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// refused tells whether the API server said no. What it says of its own
// troubles, or of a time that was too short, may come after the write.
func refused(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError && code != http.StatusRequestTimeout
}
