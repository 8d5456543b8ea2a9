package controller

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
)

// unmeasured is how many claims are made before those that count.
const unmeasured = 16

func (s *Suite) count(name string, n int) {
	s.report.Keep(name, figures.Ours, figures.Samples{float64(n)})
}

// create makes a claim of a managed class.
func (s *Suite) create(ctx context.Context, name string, d demand, labels map[string]string) error {
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	claim.Spec.Devices = d.of(true)
	if _, err := s.client.ResourceV1().ResourceClaims(claimNamespace).Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create claim %s: %w", name, err)
	}
	return nil
}

// createAll makes claims, so many at a time, and returns their names.
func (s *Suite) createAll(ctx context.Context, prefix string, count, parallel int, create func(context.Context, int, string) error) ([]string, error) {
	names := make([]string, count)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for n := range count {
		names[n] = prefix + "-" + strconv.Itoa(n)
		group.Go(func() error { return create(groupCtx, n, names[n]) })
	}
	return names, group.Wait()
}

// removeClaims deletes claims and waits for their end.
func (s *Suite) removeClaims(ctx context.Context, names []string) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(many)
	for _, name := range names {
		group.Go(func() error {
			return s.client.ResourceV1().ResourceClaims(claimNamespace).Delete(groupCtx, name, metav1.DeleteOptions{})
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("delete claims: %w", err)
	}
	return s.seen.gone(ctx, names)
}

// fill makes the claims that are there all the time.
func (s *Suite) fill(ctx context.Context) error {
	var err error
	if s.seen, err = watchClaims(ctx, s.client, claimNamespace); err != nil {
		return err
	}
	// The first one is allocated when the controller has read everything.
	if err := s.create(ctx, "first", small()[0], nil); err != nil {
		return err
	}
	if _, err := s.seen.allocated(ctx, []string{"first"}); err != nil {
		return err
	}
	start := time.Now()
	names, err := s.createAll(ctx, "fill", s.Size.Claims-1, many, func(ctx context.Context, n int, name string) error {
		return s.create(ctx, name, small()[n%len(small())], nil)
	})
	if err != nil {
		return err
	}
	if _, err := s.seen.allocated(ctx, names); err != nil {
		return err
	}
	s.report.Keep(rate, figures.Ours, figures.Samples{float64(len(names)) / time.Since(start).Seconds()})
	bytes, err := s.process.RSS()
	if err != nil {
		return err
	}
	s.report.Keep(RSS, figures.Ours, figures.Samples{figures.Megabytes(bytes)})
	return nil
}

// alone makes claims one after the other.
func (s *Suite) alone(ctx context.Context) error {
	var names []string
	for n := range unmeasured + s.Size.Alone {
		name := "alone-" + strconv.Itoa(n)
		start := time.Now()
		if err := s.create(ctx, name, demands()[n%len(demands())], nil); err != nil {
			return err
		}
		all, err := s.seen.allocated(ctx, []string{name})
		if err != nil {
			return err
		}
		if names = append(names, name); n >= unmeasured {
			s.keep(Allocate, between(all))
			s.keep(firstWrite, all[0].written.Sub(all[0].made))
			s.keep(created, all[0].allocated.Sub(start))
		}
	}
	return s.removeClaims(ctx, names)
}

// atOnce makes several claims at the same time.
func (s *Suite) atOnce(ctx context.Context) error {
	for round := range s.Size.Rounds {
		for sample, count := range map[string]int{AllocateAtOnce: some, AllocateMany: many} {
			if err := s.together(ctx, round, count, sample); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Suite) together(ctx context.Context, round, count int, sample string) error {
	names, err := s.createAll(ctx, fmt.Sprintf("at-once-%d-%d", round, count), count, count, func(ctx context.Context, n int, name string) error {
		return s.create(ctx, name, demands()[(round*count+n)%len(demands())], nil)
	})
	if err != nil {
		return err
	}
	all, err := s.seen.allocated(ctx, names)
	if err != nil {
		return err
	}
	for _, at := range all {
		s.keep(sample, at.allocated.Sub(at.made))
	}
	return s.removeClaims(ctx, names)
}

// gangs makes gangs that need as many whole machines as they have claims.
func (s *Suite) gangs(ctx context.Context) error {
	for n := range s.Size.Gangs {
		gang := fmt.Sprintf("gang-%d", n)
		labels := map[string]string{v1alpha1.LabelGang: gang, v1alpha1.LabelGangSize: strconv.Itoa(gangSize)}
		names, err := s.createAll(ctx, gang, gangSize, many, func(ctx context.Context, _ int, name string) error {
			return s.create(ctx, name, demand{published.TypeGPU, published.GPUs}, labels)
		})
		if err != nil {
			return err
		}
		all, err := s.seen.allocated(ctx, names)
		if err != nil {
			return err
		}
		s.keep(Gang, between(all))
		if err := s.removeClaims(ctx, names); err != nil {
			return err
		}
	}
	return nil
}
