package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
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
	ended bool
}

func watchClaims(ctx context.Context, client kubernetes.Interface, namespace string) (*sightings, error) {
	watch, err := client.ResourceV1().ResourceClaims(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("watch the claims of namespace %s: %w", namespace, err)
	}
	s := &sightings{watch: watch, of: map[string]sighting{}, more: make(chan struct{})}
	go s.run()
	return s, nil
}

func (s *sightings) run() {
	for event := range s.watch.ResultChan() {
		if claim, ok := event.Object.(*resourceapi.ResourceClaim); ok {
			s.note(claim, event.Type == apiwatch.Deleted, time.Now())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
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
		case ended:
			return nil, fmt.Errorf("wait until %d claims are %s: the watch of claims has ended", len(names), what)
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
