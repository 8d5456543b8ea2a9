package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Life is when something happened to a container, all by the clock of the
// node's container runtime, to less than a millisecond. What has not happened
// yet is zero.
type Life struct {
	// Made is when the runtime began to set the container up, its devices
	// included: nothing of it ran before.
	Made time.Time
	// Started is when its program ran.
	Started time.Time
	// Ended is when its program was gone.
	Ended time.Time
}

// Lives notes the lives of the node's containers while it watches. It ends with
// the container runtime that it watches.
type Lives struct {
	mu      sync.Mutex
	partial []byte
	byID    map[string]Life
	// changed is closed, and replaced, when something is noted.
	changed chan struct{}
	heard   bool

	cancel context.CancelFunc
	// done is closed when nothing more is noted, as err tells.
	done chan struct{}
	err  error
}

// WatchContainers notes what happens to the node's containers from now on, until
// [Lives.Stop].
func (c *Cluster) WatchContainers(ctx context.Context) (*Lives, error) {
	if c.tool == nil {
		return nil, ErrNoNode
	}
	watched, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &Lives{byID: map[string]Life{}, changed: make(chan struct{}), cancel: cancel, done: make(chan struct{})}
	run := c.tool.command(nil, "node", "--name", c.tool.name, "--", "ctr", "--namespace", "k8s.io", "events")
	run.Out = l
	go func() {
		defer close(l.done)
		_, l.err = run.run(watched)
	}()
	if err := c.awaitFirst(ctx, l); err != nil {
		l.Stop()
		return nil, fmt.Errorf("watching the node's containers: %w", err)
	}
	return l, nil
}

// awaitFirst makes something happen that is told of like the life of a
// container, until it is: nothing else says that the watching has begun.
func (c *Cluster) awaitFirst(ctx context.Context, l *Lives) error {
	for {
		l.mu.Lock()
		heard := l.heard
		l.mu.Unlock()
		if heard {
			return nil
		}
		if _, err := c.ctr(ctx, "namespaces", "label", "k8s.io", "watched-by=a-test"); err != nil {
			return err
		}
		select {
		case <-l.done:
			return l.err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends the watching. What was noted stays.
func (l *Lives) Stop() {
	l.cancel()
	<-l.done
}

// Of returns the life of a container as far as it is known.
func (l *Lives) Of(id string) Life {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id]
}

// Wait returns the life of a container as soon as enough says that it is known
// well enough.
func (l *Lives) Wait(ctx context.Context, id string, enough func(Life) bool) (Life, error) {
	for {
		l.mu.Lock()
		life, changed := l.byID[id], l.changed
		l.mu.Unlock()
		if enough(life) {
			return life, nil
		}
		select {
		case <-changed:
		case <-l.done:
			return life, errors.Join(fmt.Errorf("the life of container %s is known only as %+v: the watching has ended", id, life), l.err)
		case <-ctx.Done():
			return life, fmt.Errorf("the life of container %s is known only as %+v: %w", id, life, ctx.Err())
		}
	}
}

// Write takes lines of the container runtime's events.
func (l *Lives) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		line, rest, whole := bytes.Cut(l.partial, []byte("\n"))
		if !whole {
			break
		}
		l.partial = rest
		if err := l.note(string(line)); err != nil {
			return 0, err
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

// note takes one event, such as
//
//	2026-01-02 15:04:05.678901234 +0000 UTC k8s.io /tasks/start {"container_id":"…","pid":7}
func (l *Lives) note(line string) error {
	const columns = 7 // date, time, zone twice, namespace, topic, content
	parts := strings.SplitN(line, " ", columns)
	if len(parts) < columns {
		return fmt.Errorf("not an event: %q", line)
	}
	l.heard = true
	topic := parts[columns-2]
	if !strings.HasPrefix(topic, "/tasks/") {
		return nil
	}
	at, err := time.Parse("2006-01-02 15:04:05.999999999 -0700 MST", strings.Join(parts[:4], " "))
	if err != nil {
		return fmt.Errorf("time of an event: %w", err)
	}
	var content struct {
		Container string `json:"container_id"`
		// Process is the container's own name where the event is not about a
		// program that somebody runs in it besides.
		Process string `json:"id"`
		Exited  struct {
			Seconds int64 `json:"seconds"`
			Nanos   int64 `json:"nanos"`
		} `json:"exited_at"`
	}
	if err := json.Unmarshal([]byte(parts[columns-1]), &content); err != nil {
		return fmt.Errorf("content of an event %s: %w", topic, err)
	}
	life := l.byID[content.Container]
	switch topic {
	case "/tasks/create":
		life.Made = at
	case "/tasks/start":
		life.Started = at
	case "/tasks/exit":
		if content.Process == content.Container {
			life.Ended = time.Unix(content.Exited.Seconds, content.Exited.Nanos)
		}
	}
	l.byID[content.Container] = life
	return nil
}
