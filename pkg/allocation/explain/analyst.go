package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// Reasons of the events.
const (
	// ReasonWaiting: the claim gets its devices once enough of them are free.
	ReasonWaiting = "ClaimWaiting"
	// ReasonImpossible: the claim gets nothing until the claim, a class or the
	// fleet changes.
	ReasonImpossible = "ClaimCannotBeAllocated"
	// ReasonUnasked: nobody allocates the claim because no pod uses it.
	ReasonUnasked = "ClaimNotUsed"
)

// Explanation is why a claim waits.
type Explanation struct {
	// Reason is one of those above.
	Reason string
	// Text is for the claim's user.
	Text string
}

// Warning tells whether somebody has to do something.
func (e Explanation) Warning() bool { return e.Reason == ReasonImpossible }

// Analyst finds out why claims wait. It is safe for concurrent use.
type Analyst struct {
	driver  string
	classes *classes.Reader
	// tryTime bounds one question to the allocator.
	tryTime time.Duration
}

// NewAnalyst returns an analyst for claims of the driver.
func NewAnalyst(driver string) *Analyst {
	return &Analyst{driver: driver, classes: classes.NewReader(driver), tryTime: tryTime}
}

// Ours tells whether the claim asks for devices of the driver, or for a class
// that does not exist and is named as those of the driver are.
func (a *Analyst) Ours(claim *resourceapi.ResourceClaim, view *fleet.View) bool {
	return slices.ContainsFunc(classes.Of(&claim.Spec), func(asked classes.Asked) bool {
		return a.class(view, asked.Class).Ours || a.missing(view, asked.Class)
	})
}

func (a *Analyst) missing(view *fleet.View, class string) bool {
	_, err := view.Get(class)
	return err != nil && strings.HasSuffix(class, "."+a.driver)
}

func (a *Analyst) class(view *fleet.View, name string) classes.Class {
	class, err := view.Get(name)
	if err != nil {
		return classes.Class{}
	}
	return a.classes.Read(class)
}

// question is what is looked into.
type question struct {
	claim     *resourceapi.ResourceClaim
	view      *fleet.View
	consumers consumers.Consumers
	managed   bool
}

// Explain finds out why the claim waits. It ends with the context, with what it
// knows by then.
func (a *Analyst) Explain(ctx context.Context, claim *resourceapi.ResourceClaim, view *fleet.View, users consumers.Consumers) Explanation {
	q := &question{claim: claim, view: view, consumers: users}
	for _, t := range requests(claim) {
		if a.missing(view, t.class) {
			return Explanation{ReasonImpossible, t.noClass()}
		}
	}
	managed, mixed := a.allocator(q)
	q.managed = managed
	if mixed != "" {
		return Explanation{ReasonImpossible, mixed}
	}
	if why := wrongLabel(claim); managed && why != "" {
		return Explanation{ReasonImpossible, fmt.Sprintf("The gang %q of this claim is not allocated: %s.", claim.Labels[v1alpha1.LabelGang], why)}
	}
	if e, ok := a.unasked(q); ok {
		return e
	}
	places := a.places(ctx, q)
	tallies, err := a.count(ctx, q, places)
	if err != nil {
		return Explanation{ReasonWaiting, fmt.Sprintf("There are too many different devices to say in time why this claim waits: %s.", err)}
	}
	verdict := a.judge(ctx, q, places, tallies)
	parts := []string{verdict.Text, places.String()}
	for _, t := range tallies {
		// Nothing was counted where no node fits.
		if t.foreign || !places.refuse() {
			parts = append(parts, t.String())
		}
	}
	if gang := claim.Labels[v1alpha1.LabelGang]; gang != "" && verdict.Reason == ReasonWaiting {
		parts = append(parts, fmt.Sprintf("All %s claims of the gang %q are allocated together.", claim.Labels[v1alpha1.LabelGangSize], gang))
	}
	return Explanation{verdict.Reason, shorten(strings.Join(nonEmpty(parts), " "))}
}

// wrongLabel says which label of the claim keeps its gang from being allocated;
// empty if none does, or if it is of no gang. That the gang's other claims have
// different ones is told by the controller alone.
func wrongLabel(claim *resourceapi.ResourceClaim) string {
	if claim.Labels[v1alpha1.LabelGang] == "" {
		return ""
	}
	const wanted = "set it to the number of the gang's claims, such as 16, the same on all of them"
	size, ok := claim.Labels[v1alpha1.LabelGangSize]
	if !ok {
		return fmt.Sprintf("the claim has no label %s; %s", v1alpha1.LabelGangSize, wanted)
	}
	if n, err := strconv.Atoi(size); err != nil || n < 1 {
		return fmt.Sprintf("the claim's label %s is %q; %s", v1alpha1.LabelGangSize, size, wanted)
	}
	if timeout, ok := claim.Labels[v1alpha1.LabelGangTimeout]; ok {
		if d, err := time.ParseDuration(timeout); err != nil || d <= 0 {
			return fmt.Sprintf("the claim's label %s is %q; set it to a duration above zero, such as 5m, or remove it, on all of the gang's claims", v1alpha1.LabelGangTimeout, timeout)
		}
	}
	return ""
}

// allocator tells whether the controller allocates the claim, or why nobody
// does.
func (a *Analyst) allocator(q *question) (managed bool, mixed string) {
	var ours, others string
	for _, asked := range classes.Of(&q.claim.Spec) {
		if a.class(q.view, asked.Class).Managed {
			ours = asked.Request
		} else {
			others = asked.Request
		}
	}
	if ours == "" || others == "" {
		return ours != "", ""
	}
	return true, fmt.Sprintf("Nobody allocates this claim: the class of request %s is managed by the controller and that of request %s is not. "+
		"Use managed classes for all requests or for none, or make two claims.", ours, others)
}

// unasked explains claims that wait for a pod, not for devices.
func (a *Analyst) unasked(q *question) (Explanation, bool) {
	switch users := q.consumers; {
	case users.Awaited || len(users.Pods) > 0 && !users.Gated():
		return Explanation{}, false
	case users.Gated():
		if q.managed {
			return Explanation{}, false
		}
		return Explanation{ReasonUnasked, fmt.Sprintf("Its pod %s has scheduling gates: kube-scheduler allocates the claim once they are gone.", users.Pods[0].Name)}, true
	case !q.managed:
		return Explanation{ReasonUnasked, "No pod uses this claim: kube-scheduler allocates a claim only when it schedules a pod that lists it in spec.resourceClaims."}, true
	case q.claim.Annotations[claimwrite.AnnotationFreedUnused] != "":
		return Explanation{ReasonUnasked, "The devices of this claim were freed because no pod used them: the controller allocates it again once a pod lists it in spec.resourceClaims."}, true
	}
	return Explanation{}, false
}

// judge finds the one thing to say first.
func (a *Analyst) judge(ctx context.Context, q *question, p *places, tallies []*tally) Explanation {
	for _, t := range tallies {
		if t.trouble != "" { // of an alternative, too: the allocator gives up
			return Explanation{ReasonImpossible, t.trouble}
		}
	}
	switch {
	case len(p.all) == 0:
		return Explanation{ReasonImpossible, fmt.Sprintf("No node publishes devices of %s: see whether the kubelet plugin runs on the GPU nodes.%s", a.driver, p.unusable)}
	case q.managed && !q.view.AnyManaged() && !q.view.Any(isSettling):
		return Explanation{ReasonImpossible, "No node has devices that the controller gives away: section managed of the nodes' configuration says which these are, and Kubernetes 1.36 or later keeps the taint that marks them."}
	case p.refuse():
		return Explanation{ReasonWaiting, fmt.Sprintf("The claim's pods fit on none of the nodes that have devices of %s.", a.driver)}
	}
	if t := worst(tallies, (*tally).neverEnough); t != nil {
		text := fmt.Sprintf("%s needs %s, and no node has that, even if all devices were free", t.title(), t.needs())
		if t.ever > 0 {
			text += fmt.Sprintf(" (%s has %d)", t.everNode, t.ever)
		}
		if t.temporary() {
			return Explanation{ReasonWaiting, fmt.Sprintf("%s needs %s, and nobody may give away devices that are settling.", t.title(), t.needs())}
		}
		return Explanation{ReasonImpossible, text + "."}
	}
	if t := worst(tallies, (*tally).notEnough); t != nil {
		return a.onceFree(ctx, q, p, tallies, fmt.Sprintf("%s needs %s, and %s.", t.title(), t.needs(), t.shortOf()))
	}
	if slices.ContainsFunc(tallies, func(t *tally) bool { return t.failed != "" }) {
		// The allocator would fail with the selector.
		return Explanation{ReasonWaiting, "Each request alone has enough free devices, but whether some fit together cannot be told of a claim with a selector that fails."}
	}
	return a.search(ctx, q, p, tallies)
}

// worst returns the first request that fails the test: one without alternatives,
// or the first alternative of a request all of whose alternatives fail.
func worst(tallies []*tally, fails func(*tally) bool) *tally {
	for i := 0; i < len(tallies); {
		end := i + 1
		for end < len(tallies) && tallies[end].parent != "" && tallies[end].parent == tallies[i].parent {
			end++
		}
		if !slices.ContainsFunc(tallies[i:end], func(t *tally) bool { return !fails(t) }) {
			return tallies[i]
		}
		i = end
	}
	return nil
}

// toldRefusals bounds how many reasons are told why nodes do not fit.
const toldRefusals = 3

// places are the nodes that matter.
type places struct {
	driver string
	// all have devices of the driver, fitting are those of them on which the
	// claim's pods can run.
	all, fitting []*fleet.Node
	// refused says why the others are not fitting.
	refused  []refusal
	unusable string
}

// refusal is why some nodes do not fit.
type refusal struct {
	why string
	// node is the first of them, of so many.
	node  string
	nodes int
}

// refuse tells whether there are devices, but on no node where the claim's pods
// can run.
func (p *places) refuse() bool { return len(p.all) > 0 && len(p.fitting) == 0 }

func (a *Analyst) places(ctx context.Context, q *question) *places {
	p := &places{driver: a.driver}
	fits := q.consumers.Nodes(klog.FromContext(ctx))
	for _, n := range q.view.Nodes() {
		if len(n.Unusable) > 0 && p.unusable == "" {
			p.unusable = fmt.Sprintf(" What node %s publishes cannot be used: %s.", n.Name, strings.Join(n.Unusable, "; "))
		}
		if len(n.Pools) == 0 {
			continue
		}
		p.all = append(p.all, n)
		if ok, why := fits(n.Object); ok {
			p.fitting = append(p.fitting, n)
		} else {
			p.refusedBy(n, why)
		}
	}
	return p
}

func (p *places) refusedBy(n *fleet.Node, why string) {
	i := slices.IndexFunc(p.refused, func(r refusal) bool { return r.why == why })
	switch {
	case i >= 0:
		p.refused[i].nodes++
	case len(p.refused) < toldRefusals:
		p.refused = append(p.refused, refusal{why: why, node: n.Name, nodes: 1})
	}
}

// refusals says why no node fits.
func (p *places) refusals() string {
	var texts []string
	told := 0
	for _, r := range p.refused {
		on := "on " + r.node
		if r.nodes > 1 {
			on = fmt.Sprintf("on %d, such as %s", r.nodes, r.node)
		}
		texts = append(texts, on+", "+r.why)
		told += r.nodes
	}
	if rest := len(p.all) - told; rest > 0 {
		texts = append(texts, fmt.Sprintf("on %d for other reasons", rest))
	}
	return strings.Join(texts, "; ")
}

// String is a sentence about the nodes.
func (p *places) String() string {
	if len(p.all) == 0 {
		return ""
	}
	nodes := fmt.Sprintf("%s %s devices of %s", plural(len(p.all), "node"), verb(len(p.all), "publishes", "publish"), p.driver)
	switch {
	case len(p.fitting) == len(p.all):
		return nodes + "."
	case len(p.fitting) == 0:
		return fmt.Sprintf("%s: %s.", nodes, p.refusals())
	default:
		return fmt.Sprintf("%s, and %d of them %s the claim's pods (not %s: %s).", nodes, len(p.fitting), verb(len(p.fitting), "fits", "fit"), p.refused[0].node, p.refused[0].why)
	}
}

// errLate is what a search ends with when its time is over.
var errLate = errors.New("the time for the answer is over")
