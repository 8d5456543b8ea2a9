package managed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
)

// lockWait bounds the wait for another instance that writes.
const lockWait = 5 * time.Second

// Options are what [Allocators] need.
type Options struct {
	// Dir is where the state is kept, the same for all instances on the node.
	Dir string
	// BootID tells one boot of the machine from another.
	BootID string
	// Settle is how long a device that changes hands is given to nobody.
	Settle time.Duration
	// Clock returns the time since the boot, the same for all processes, and
	// always more than zero. Nil: the kernel's, time asleep included.
	Clock func() (time.Duration, error)
	// At marks a step at which tests make the plugin fail. Nil: [faultpoint.At].
	At func(faultpoint.Step) error
}

// Allocators are who gives the devices of one node to claims. A node on which
// nothing is managed, and nothing was, has no file of them.
type Allocators struct {
	options Options

	mu   sync.Mutex
	lock *lock
	// number is this instance's, once it has decided.
	number int64
	// known is what was on disk the last time; nil if nothing was.
	known *state
	// met tells that this instance has met the state once.
	met bool
}

// New returns the allocators as they are on disk.
func New(options Options) *Allocators {
	if options.Clock == nil {
		options.Clock = sinceBoot
	}
	if options.At == nil {
		options.At = faultpoint.At
	}
	return &Allocators{options: options}
}

// Close lets another instance decide.
func (a *Allocators) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lock == nil {
		return nil
	}
	return a.lock.file.Close()
}

// Known tells whether some device may not be kube-scheduler's.
func (a *Allocators) Known() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		return a.exists()
	}
	return len(a.known.Devices) > 0
}

// WantsLook tells whether [Allocators.Decide] needs to know what the API says of
// the devices.
func (a *Allocators) WantsLook() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.met || a.known != nil && a.known.settling()
}

// Question is what [Allocators.Decide] decides about.
type Question struct {
	Devices []Device
	// Seen is what the API says of this node's devices now; nil if it was not
	// asked.
	Seen map[string]Allocator
	// Impossible tells that the API cannot say of a device that kube-scheduler
	// must leave it alone. Then kube-scheduler has all of them.
	Impossible bool
}

// Decision says who gives the devices from now on.
type Decision struct {
	// Allocators are those of the devices that are not kube-scheduler's.
	Allocators map[string]Allocator
	Changes    []Change
	// Next is when to decide again though nothing has changed; zero: never.
	Next time.Duration
}

// Decide brings the devices as far as they can be now and writes that down,
// before anything of it may be published. What cannot be written down does not
// happen: the decision that comes with an error is the last one that was. Where
// another instance decides, it returns what that one has decided.
func (a *Allocators) Decide(ctx context.Context, q Question) (Decision, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := groups(q.Devices)
	if !a.involved(all, q) {
		a.met = true
		return Decision{}, nil
	}
	release, err := a.hold(ctx)
	if err != nil {
		return a.lastDecision(), err
	}
	defer release()
	if !a.met {
		// What a crash has left half-written. If it cannot be removed, the next
		// write says why.
		_ = os.Remove(a.path() + tempSuffix)
	}
	before, err := a.read(ctx, q.Devices)
	if err != nil {
		return a.lastDecision(), err
	}
	a.known = before
	after := before.clone()
	decides, err := a.decides(after)
	if err != nil || !decides {
		a.met = true
		return a.lastDecision(), err
	}
	now, err := a.options.Clock()
	if err != nil {
		return a.lastDecision(), err
	}
	var decision Decision
	if q.Impossible {
		after.Devices = nil
	} else {
		decision.Changes, decision.Next = after.step(now, a.options.Settle, all, q.Seen)
	}
	if err := a.save(after); err != nil {
		return a.lastDecision(), err
	}
	a.known, a.met = after, true
	decision.Allocators = after.allocators()
	return decision, nil
}

// involved tells whether there is anything to decide.
func (a *Allocators) involved(all []group, q Question) bool {
	if a.known != nil || a.exists() {
		return true
	}
	if q.Impossible {
		return false
	}
	for _, g := range all {
		if g.target == Controller {
			return true
		}
		for _, name := range g.names {
			if said, there := q.Seen[name]; there && said != Scheduler {
				return true
			}
		}
	}
	return false
}

func (a *Allocators) lastDecision() Decision {
	if a.known == nil {
		return Decision{}
	}
	return Decision{Allocators: a.known.allocators()}
}

func (a *Allocators) hold(ctx context.Context) (func(), error) {
	if a.lock == nil {
		path := filepath.Join(a.options.Dir, lockFile)
		l, err := openLock(path)
		if err != nil {
			return nil, fmt.Errorf("lock who gives this node's devices: %w: see that %s can be written and has room", err, a.options.Dir)
		}
		a.lock = l
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	release, err := a.lock.hold(ctx)
	if err != nil {
		return nil, fmt.Errorf("lock who gives this node's devices, in %s: %w", a.lock.file.Name(), err)
	}
	return release, nil
}

// read returns what is on disk. Where that makes no sense, every device settles
// again: whoever gave it may have begun to do so a moment ago.
func (a *Allocators) read(ctx context.Context, devices []Device) (*state, error) {
	s, err := a.load()
	var unreadable *wholefile.UnreadableError
	switch {
	case errors.As(err, &unreadable):
		path, err := a.setAside()
		if err != nil {
			return nil, errors.Join(unreadable, err)
		}
		klog.FromContext(ctx).Error(unreadable, "File set aside: who gives this node's devices is not known, so for a while nobody does; the file can be deleted", "path", path, "settle", a.options.Settle)
		s = &state{lost: true}
		for _, d := range devices {
			s.set(d.Name, entry{Allocator: Settling})
		}
	case err != nil:
		return nil, err
	case s == nil && a.known != nil: // it was deleted
		s = a.known
	case s == nil:
		s = &state{lost: true}
	}
	return s, nil
}

// decides tells whether this instance is the one that decides. The latest one to
// come is, and when it has gone, any other.
func (a *Allocators) decides(s *state) (bool, error) {
	if a.number != 0 && s.Decider == a.number {
		return true, nil
	}
	if a.met && s.Decider != 0 {
		alive, err := a.lock.alive(s.Decider)
		if err != nil {
			return false, fmt.Errorf("find out which instance of the plugin decides who gives this node's devices: %w", err)
		}
		if alive {
			return false, nil
		}
	}
	number, err := a.lock.number(s.Decider)
	if err != nil {
		return false, fmt.Errorf("become the instance of the plugin that decides who gives this node's devices: %w", err)
	}
	if a.number != 0 {
		a.lock.drop(a.number)
	}
	a.number, s.Decider = number, number
	return true, nil
}

// sinceBoot is a clock that no correction of the time of day moves.
func sinceBoot() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read the time since the boot: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
