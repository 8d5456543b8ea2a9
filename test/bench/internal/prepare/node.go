package prepare

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// Names of samples.
const (
	startToSlices  = "start_to_slices"
	rssIdle        = "rss_idle"
	rssWarm        = "rss_warm"
	rssAfter       = "rss_after"
	prepareAlone   = "prepare_alone"
	unprepareAlone = "unprepare_alone"
	prepareAtOnce  = "prepare_8_last"
	undoAtOnce     = "unprepare_8_last"
	crowdTotal     = "cycle_64_total"
	crowdWait      = "cycle_64_prepare"
	crowdTwice     = "cycle_64_given_twice"
)

// starts measures how long the plugins take to start. The first time is not measured:
// ours then writes the files of the simulated machine, about 5 000.
func (s *Suite) starts(ctx context.Context) error {
	return s.alternately(1+s.Size.Starts, func(subject *subject) error {
		first := subject.devices == nil
		if err := subject.stop(); err != nil {
			return err
		}
		took, err := subject.start(ctx)
		if err != nil {
			return err
		}
		if !first {
			subject.keep(startToSlices, figures.Milliseconds(took))
		}
		return nil
	})
}

// lookAtMemory looks at the memory of plugins that have nothing to do.
func (s *Suite) lookAtMemory(ctx context.Context, name string) error {
	if err := s.rest(ctx); err != nil {
		return err
	}
	return s.alternately(1, func(subject *subject) error {
		bytes, err := subject.process.RSS()
		if err != nil {
			return err
		}
		subject.keep(name, figures.Megabytes(bytes))
		return nil
	})
}

// alone prepares and unprepares one claim after the other.
func (s *Suite) alone(ctx context.Context) error {
	for _, subject := range s.subjects {
		var err error
		if subject.claims, err = subject.newClaims(ctx, "one", gpus); err != nil {
			return subject.explain(err)
		}
	}
	// The first calls open connections, which happens once in a plugin's life.
	cycle := 0
	for _, measured := range []bool{false, true} {
		rounds := gpus
		if measured {
			rounds = s.Size.Alone
		}
		err := s.alternately(rounds, func(subject *subject) error {
			claim := subject.claims[cycle/len(s.subjects)%gpus]
			cycle++
			prepared, err := subject.prepare(ctx, claim)
			if err != nil {
				return err
			}
			undone, err := subject.unprepare(ctx, claim)
			if err == nil && measured {
				subject.keep(prepareAlone, figures.Milliseconds(prepared))
				subject.keep(unprepareAlone, figures.Milliseconds(undone))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// atOnce prepares a claim for each device at the same time, in calls of their
// own as for as many pods, and then unprepares them likewise.
func (s *Suite) atOnce(ctx context.Context) error {
	return s.alternately(s.Size.AtOnce, func(subject *subject) error {
		for _, phase := range []struct {
			name string
			call func(context.Context, draclient.Claim) (time.Duration, error)
		}{{prepareAtOnce, subject.prepare}, {undoAtOnce, subject.unprepare}} {
			start := time.Now()
			group, ctx := errgroup.WithContext(ctx)
			for _, claim := range subject.claims {
				group.Go(func() error {
					_, err := phase.call(ctx, claim)
					return err
				})
			}
			if err := group.Wait(); err != nil {
				return err
			}
			subject.keep(phase.name, figures.Milliseconds(time.Since(start)))
		}
		return nil
	})
}

// crowds has 64 claims prepared at once, each unprepared as soon as it is
// prepared, and watches that no device is given to two of them.
func (s *Suite) crowds(ctx context.Context) error {
	claims := map[*subject][]draclient.Claim{}
	for _, subject := range s.subjects {
		var err error
		if claims[subject], err = subject.newClaims(ctx, "crowd", crowd); err != nil {
			return subject.explain(err)
		}
	}
	return s.alternately(s.Size.Crowds, func(subject *subject) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		holders := make([]holder, gpus)
		start := time.Now()
		group, ctx := errgroup.WithContext(ctx)
		for i, claim := range claims[subject] {
			group.Go(func() error {
				waited, err := subject.prepare(ctx, claim)
				if err != nil {
					return err
				}
				holders[i%gpus].take()
				subject.keep(crowdWait, figures.Milliseconds(waited))
				holders[i%gpus].giveBack()
				_, err = subject.unprepare(ctx, claim)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		subject.keep(crowdTotal, figures.Milliseconds(time.Since(start)))
		twice := 0
		for i := range holders {
			twice += holders[i].twice
		}
		subject.keep(crowdTwice, float64(twice))
		return nil
	})
}

// holder counts how often a device was given while it was another's.
type holder struct {
	mu           sync.Mutex
	users, twice int
}

func (h *holder) take() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users++; h.users > 1 {
		h.twice++
	}
}

// giveBack comes before the call that unprepares: from then on the driver may
// give the device away.
func (h *holder) giveBack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users--
}

// memory looks at the memory after many claims.
func (s *Suite) memory(ctx context.Context) error {
	const portion = 100 // of cycles, before it is the next one's turn
	err := s.alternately((s.Size.MemoryCycles+portion-1)/portion, func(subject *subject) error {
		group, ctx := errgroup.WithContext(ctx)
		for i, claim := range subject.claims {
			group.Go(func() error {
				for range (portion + i) / gpus {
					if _, err := subject.prepare(ctx, claim); err != nil {
						return err
					}
					if _, err := subject.unprepare(ctx, claim); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return group.Wait()
	})
	if err != nil {
		return fmt.Errorf("prepare %d claims: %w", s.Size.MemoryCycles, err)
	}
	return s.lookAtMemory(ctx, rssAfter)
}
