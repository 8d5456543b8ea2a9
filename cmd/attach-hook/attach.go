package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/attachsocket"
)

const (
	// firstPause and lastPause are the shortest and the longest time between
	// two tries to reach a plugin.
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// attach returns nil once all devices of the claim are in the container's
// sandbox. It waits for a plugin that is being started or updated, because a
// hook that fails ends a pod that is not restarted for good.
func attach(ctx context.Context, o options, c *container) error {
	var last error
	deadline := time.NewTimer(o.wait)
	defer deadline.Stop()
	until := time.Now().Add(o.wait)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		// Looked at each time: a plugin may have died between its work and
		// its answer.
		r := loadRecord(o.dataDir, o.claim)
		if r.hasAll(c) {
			return nil
		}
		answer, err := ask(ctx, o, c, until)
		switch {
		case err != nil:
			last = err
		case answer.Error == "":
			return nil
		case !answer.Retry:
			return errors.New(answer.Error)
		default:
			last = errors.New(answer.Error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the runtime has ended the hook while it waited: %w", last)
		case <-deadline.C:
			return fmt.Errorf("claim %s: its network devices are not attached to pod %s/%s: waited %s for the kubelet plugin on this node: %w: see that the plugin's pod runs here",
				r.claimName(o.claim), c.pod.Namespace, c.pod.Name, o.wait, last)
		case <-time.After(pause):
		}
	}
}

// ask asks the instances of the plugin, the newest first, until one answers.
func ask(ctx context.Context, o options, c *container, until time.Time) (attachsocket.Answer, error) {
	dir := filepath.Join(o.dataDir, attachsocket.Folder)
	names, err := attachsocket.Sockets(dir)
	if err != nil {
		return attachsocket.Answer{}, fmt.Errorf("look for the kubelet plugin: %w", err)
	}
	if len(names) == 0 {
		return attachsocket.Answer{}, fmt.Errorf("no socket in %s", dir)
	}
	var errs []error
	for _, name := range names {
		answer, err := attachsocket.Call(ctx, dir, name, attachsocket.Request{
			Claim: o.claim, Pod: c.pod, SandboxID: c.sandboxID, NetnsPath: c.path,
			WaitMilliseconds: max(time.Until(until), lastPause).Milliseconds(),
		}, c.netns)
		if err == nil {
			return answer, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil || time.Now().After(until) {
			break
		}
	}
	return attachsocket.Answer{}, errors.Join(errs...)
}
