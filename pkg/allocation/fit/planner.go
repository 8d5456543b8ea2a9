package fit

import (
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// ErrNoFit is wrapped by the errors that say that nothing fits now. They say in
// one sentence why, and the caller tries again when devices or nodes change.
// Errors that do not wrap it are about the claim itself, such as a selector that
// does not compile, or the context's.
var ErrNoFit = errors.New("nothing fits")

// Ask is what is to be placed.
type Ask struct {
	// Claims are the one claim, the claims of one pod, or the members of a gang.
	// They are never changed. Claims that are allocated already are not for
	// here.
	Claims []*resourceapi.ResourceClaim
	// Nodes tells which nodes may be used. Nil allows all.
	Nodes func(*corev1.Node) bool
	// NodesOf tells it for single members of a gang, besides Nodes. It must have
	// no state: nodes are asked about once.
	NodesOf map[types.UID]func(*corev1.Node) bool
	// Avoid tells which nodes are tried only if no other fits. Nil avoids none.
	// Nodes that are unschedulable or have a taint of effect NoSchedule or
	// NoExecute are tried after those that are not, also without it: the pods
	// that will come are not known here.
	Avoid func(*corev1.Node) bool
	// Groups are members of a gang that need the same node, such as the claims of
	// one pod: each an own group of some of Claims. Members that are in none may
	// be anywhere.
	Groups [][]*resourceapi.ResourceClaim
	// TopologyLabel is a label of nodes. If it is set, all members of a gang get
	// nodes with the same value of it. Nodes without the label are not used.
	TopologyLabel string
}

// Choice is what a claim is to be given.
type Choice struct {
	Claim types.UID
	Node  string
	// Allocation is as kube-scheduler would make it, without a timestamp.
	Allocation resourceapi.AllocationResult
	// Why is one sentence for an event.
	Why string
}

// Planner chooses. It is safe for concurrent use; but two plans that are made
// before the first has been assumed by the fleet may give out the same device,
// which [fleet.Fleet.Assume] then refuses. It makes one plan at a time, each in
// some milliseconds; where only a search can tell, as for constraints that are
// hard to meet, in up to some seconds.
type Planner struct {
	fleet *fleet.Fleet
	mu    sync.Mutex // guards what follows
	*evaluator
}

// New returns a planner for a fleet.
func New(f *fleet.Fleet) *Planner {
	return &Planner{fleet: f, evaluator: newEvaluator(f.DriverName())}
}

// One chooses for a single claim. It fails with [ErrNoFit] if nothing fits.
func (p *Planner) One(ctx context.Context, ask Ask) (Choice, error) {
	choices, err := p.Together(ctx, ask)
	if err != nil {
		return Choice{}, err
	}
	return choices[0], nil
}

// Together chooses one node for all the claims, such as those of one pod. The
// choices are in the order of the claims. It fails with [ErrNoFit] if no single
// node has what they all need.
func (p *Planner) Together(ctx context.Context, ask Ask) ([]Choice, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.together(ctx, p.fleet.View(), ask)
}

// Gang chooses for all the claims, each on a node of its own or several on one,
// so that they are on few nodes and few NUMA nodes. The choices are in the order
// of the claims. It fails with [ErrNoFit] if not all of them can be placed.
//
// Members that ask for the same and may use the same nodes are placed exactly:
// if there is a way to place them all, one is found, and with the alternatives
// that it uses no way needs fewer nodes. That holds as long as the allocator
// comes to an end in time where constraints, or devices that exclude each other,
// make it search. A way in which all have better alternatives is preferred to
// one on fewer nodes.
//
// Members that differ are placed one after the other, those that ask for most
// first, and those that are placed make way for others. That finds a way
// whenever each needs a node for itself; otherwise a way may be missed, or use
// more nodes than needed.
func (p *Planner) Gang(ctx context.Context, ask Ask) ([]Choice, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gang(ctx, p.fleet.View(), ask)
}
