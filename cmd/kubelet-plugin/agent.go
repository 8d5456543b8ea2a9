package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
)

// agent serves a node: its claims, and its extended resources.
type agent struct {
	*driver.Driver
	resources *deviceplugin.Plugin
	// selector is nil for a driver that is being removed.
	selector *nodeSelector
}

// Run runs both; when one ends, so does the other.
func (a *agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg             sync.WaitGroup
		err, labelsErr error
	)
	if a.selector != nil {
		wg.Go(func() {
			defer cancel()
			labelsErr = a.selector.follow(ctx)
		})
	}
	wg.Go(func() {
		defer cancel()
		if err = a.resources.Run(ctx, a.Offered); err != nil {
			err = fmt.Errorf("device plugin: %w", err)
		}
	})
	driverErr := a.Driver.Run(ctx)
	cancel()
	wg.Wait()
	return errors.Join(driverErr, err, labelsErr)
}

// Ready returns nil once both serve kubelet.
func (a *agent) Ready(ctx context.Context) error {
	return errors.Join(a.Driver.Ready(ctx), a.resources.Ready(ctx))
}
