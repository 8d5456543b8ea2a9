package rivals

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// Allocator is who gives devices to claims.
type Allocator string

// A device that is between both is given by nobody.
const (
	Scheduler  Allocator = "kube-scheduler"
	Settling   Allocator = "nobody"
	Controller Allocator = "controller"
)

const (
	// users is how many claims are there at the same time.
	users = 24
	// patience is how long a user waits for a device, and longestUse how long it
	// keeps one.
	patience, longestUse = 3 * time.Second, time.Second
	// tidying is how long it may take until nothing is left of the race.
	tidying = 2 * time.Minute
)

// Race is both allocators at the same devices.
type Race struct {
	Client kubernetes.Interface
	// Namespace is for the claims and pods of the race alone. Pods can be made in
	// it.
	Namespace string
	Nodes     []string
	// Hand publishes that the devices of a node are given by an allocator. It is
	// called for several nodes at a time.
	Hand func(ctx context.Context, node string, to Allocator) error
	// Parts are what a device has to itself. Two devices of a node with a part in
	// common cannot be given at the same time.
	Parts func(device string) []string
	// Managed are what claims ask the controller for, Plain those that they ask
	// kube-scheduler for.
	Managed, Plain []resourceapi.DeviceClaim
	// Place makes a pod run on these nodes only.
	Place func(*corev1.PodSpec)
	// Settle is for how long a device is given by nobody when it changes hands.
	Settle time.Duration
	// Lasts is for how long new claims are made.
	Lasts time.Duration
}

// Result is what became of a race.
type Result struct {
	// Twice tells of each device that was given to a claim while another had it.
	Twice []string
	// ByController and ByScheduler are how many claims were allocated.
	ByController, ByScheduler int
	// Handovers is how often devices of a node got a new allocator.
	Handovers int
}

// Run has claims made, with pods and without, used and deleted, while the nodes
// change hands all the time. It returns when nothing is left of them.
func (r Race) Run(ctx context.Context) (_ Result, err error) {
	ledger, err := watch(ctx, r.Client, r.Namespace, r.Parts)
	if err != nil {
		return Result{}, err
	}
	defer ledger.stop()
	defer func() { err = errors.Join(err, r.tidy(ctx)) }()
	// Without a deadline, of which clients would say before it comes that it is too
	// soon for a request.
	lasting, end := context.WithCancelCause(ctx)
	defer end(nil)
	timer := time.AfterFunc(r.Lasts, func() { end(errOver) })
	defer timer.Stop()
	var handovers atomic.Int64
	group, running := errgroup.WithContext(lasting)
	for i, node := range r.Nodes {
		group.Go(func() error {
			return untilDone(running, r.switching(running, node, []Allocator{Controller, Scheduler}[i%2], &handovers))
		})
	}
	for user := range users {
		group.Go(func() error { return untilDone(running, r.using(running, user, ledger)) })
	}
	if err := group.Wait(); err != nil {
		return Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	result, err := ledger.result()
	result.Handovers = int(handovers.Load())
	return result, err
}

// errOver is why requests end when the race does.
var errOver = errors.New("the race is over")

// untilDone takes an error for the end of the race if that has come.
func untilDone(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errOver) {
		return nil
	}
	return err
}

// switching hands the devices of a node to one allocator and the other.
func (r Race) switching(ctx context.Context, node string, to Allocator, handovers *atomic.Int64) error {
	for {
		if err := r.Hand(ctx, node, to); err != nil {
			return fmt.Errorf("hand the devices of node %s to %s: %w", node, to, err)
		}
		handovers.Add(1)
		if err := pause(ctx, upTo(r.Settle)); err != nil {
			return err
		}
		if err := r.Hand(ctx, node, Settling); err != nil {
			return fmt.Errorf("take the devices of node %s from %s: %w", node, to, err)
		}
		if err := pause(ctx, r.Settle); err != nil {
			return err
		}
		if to == Controller {
			to = Scheduler
		} else {
			to = Controller
		}
	}
}

// using makes claims, one after the other: for kube-scheduler with a pod, which
// it needs, for the controller with a pod and without.
func (r Race) using(ctx context.Context, user int, ledger *ledger) error {
	for n := user; ; n++ {
		name, demands := fmt.Sprintf("managed-%d-%d", user, n), r.Managed
		if n%3 == 0 {
			name, demands = fmt.Sprintf("plain-%d-%d", user, n), r.Plain
		}
		claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}}
		claim.Spec.Devices = demands[rand.IntN(len(demands))] //nolint:gosec // not for secrets
		if err := r.use(ctx, claim, n%3 != 1, ledger); err != nil {
			return err
		}
	}
}

// use makes a claim, waits for a while until it is allocated, keeps it, and
// deletes it.
func (r Race) use(ctx context.Context, claim *resourceapi.ResourceClaim, withPod bool, ledger *ledger) error {
	allocated := ledger.await(claim.Name)
	claims, pods := r.Client.ResourceV1().ResourceClaims(r.Namespace), r.Client.CoreV1().Pods(r.Namespace)
	if _, err := claims.Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create claim %s: %w", claim.Name, err)
	}
	if withPod {
		if _, err := pods.Create(ctx, r.pod(claim.Name), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create pod %s: %w", claim.Name, err)
		}
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-ledger.ended:
		return ledger.err
	case <-timer.C:
	case <-allocated:
		if err := pause(ctx, upTo(longestUse)); err != nil {
			return err
		}
	}
	if withPod {
		if err := gone(pods.Delete(ctx, claim.Name, now())); err != nil {
			return fmt.Errorf("delete pod %s: %w", claim.Name, err)
		}
	}
	if err := gone(claims.Delete(ctx, claim.Name, metav1.DeleteOptions{})); err != nil {
		return fmt.Errorf("delete claim %s: %w", claim.Name, err)
	}
	return nil
}

func (r Race) pod(claim string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: claim}, Spec: corev1.PodSpec{
		ResourceClaims: []corev1.PodResourceClaim{{Name: "device", ResourceClaimName: &claim}},
		Containers: []corev1.Container{{
			Name: "main", Image: "localhost/none:none",
			Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "device"}}},
		}},
	}}
	r.Place(&pod.Spec)
	return pod
}

// tidy removes what is left, also after ctx is done, and waits for the end of it.
func (r Race) tidy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidying)
	defer cancel()
	if err := r.Client.CoreV1().Pods(r.Namespace).DeleteCollection(ctx, now(), metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the pods of the race: %w", err)
	}
	claims := r.Client.ResourceV1().ResourceClaims(r.Namespace)
	if err := claims.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the claims of the race: %w", err)
	}
	for {
		left, err := claims.List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("wait for the end of the claims of the race: %w", err)
		}
		if len(left.Items) == 0 {
			return nil
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the end of the claims of the race, of which %d are left: %w", len(left.Items), err)
		}
	}
}

func now() metav1.DeleteOptions { return metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)} }

// gone returns nil for what was there no more.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func upTo(d time.Duration) time.Duration { return rand.N(d) } //nolint:gosec // not for secrets

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
