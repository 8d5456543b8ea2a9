package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// sighting is when a watch told of a claim, of the controller's first write to it,
// and of its allocation.
type sighting struct {
	made, written, allocated time.Time
	gone                     bool
}

// sightings are what a watch told of the claims of a namespace. The controller
// knows of them by such a watch, too, so that the time between two sightings is
// what it took from its hearing of a claim to its last write.
type sightings struct {
	watch apiwatch.Interface

	mu    sync.Mutex
	of    map[string]sighting
	more  chan struct{} // closed, and replaced, when there is news
	ended error         // why the watch has ended
}

func watchClaims(ctx context.Context, client kubernetes.Interface, namespace string) (*sightings, error) {
	claims := client.ResourceV1().ResourceClaims(namespace)
	there, err := claims.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("list the claims of namespace %s: %w", namespace, err)
	}
	// An API server with much to do ends watches; this one then goes on where it
	// was.
	watch, err := watchtools.NewRetryWatcherWithContext(ctx, there.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			return claims.Watch(ctx, options)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch the claims of namespace %s: %w", namespace, err)
	}
	s := &sightings{watch: watch, of: map[string]sighting{}, more: make(chan struct{})}
	go s.run()
	return s, nil
}

func (s *sightings) run() {
	why := errors.New("it was closed")
	for event := range s.watch.ResultChan() {
		if claim, ok := event.Object.(*resourceapi.ResourceClaim); ok {
			s.note(claim, event.Type == apiwatch.Deleted, time.Now())
			continue
		}
		why = apierrors.FromObject(event.Object)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = why
	close(s.more)
}

func (s *sightings) note(claim *resourceapi.ResourceClaim, gone bool, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.of[claim.Name]
	if seen.made.IsZero() {
		seen.made = at
	}
	if len(claim.Finalizers) > 0 && seen.written.IsZero() {
		seen.written = at
	}
	if claim.Status.Allocation != nil && seen.allocated.IsZero() {
		seen.allocated = at
	}
	seen.gone = gone
	s.of[claim.Name] = seen
	close(s.more)
	s.more = make(chan struct{})
}

// await returns the sightings of claims as soon as each of them is as wanted.
func (s *sightings) await(ctx context.Context, what string, names []string, is func(sighting) bool) ([]sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, next := make([]sighting, len(names)), 0
	for {
		s.mu.Lock()
		for next < len(names) && is(s.of[names[next]]) {
			found[next] = s.of[names[next]]
			next++
		}
		more, ended := s.more, s.ended
		s.mu.Unlock()
		switch {
		case next == len(names):
			return found, nil
		case ended != nil:
			return nil, fmt.Errorf("wait until %d claims are %s: the watch of claims has ended: %w", len(names), what, ended)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until %d claims are %s; claim %s is not, %d others are: %w", len(names), what, names[next], next, ctx.Err())
		case <-more:
		}
	}
}

// allocated returns the sightings of claims as soon as all are allocated.
func (s *sightings) allocated(ctx context.Context, names []string) ([]sighting, error) {
	return s.await(ctx, "allocated", names, func(at sighting) bool { return !at.allocated.IsZero() })
}

// gone returns when claims are no more.
func (s *sightings) gone(ctx context.Context, names []string) error {
	_, err := s.await(ctx, "gone", names, func(at sighting) bool { return at.gone })
	return err
}

func (s *sightings) stop() { s.watch.Stop() }

// between returns the time from when the last of claims was heard of until the
// last was allocated.
func between(all []sighting) time.Duration {
	var made, allocated time.Time
	for _, at := range all {
		if at.made.After(made) {
			made = at.made
		}
		if at.allocated.After(allocated) {
			allocated = at.allocated
		}
	}
	return allocated.Sub(made)
}
