package privileges

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shadows are rights that the API server asks for when it serves another
// request, which is all that the audit log has of them.
func shadows() map[string]request {
	return map[string]request{
		"controller: update resourceclaims.resource.k8s.io/binding": {
			account: "controller", verb: "update", group: "resource.k8s.io", resource: "resourceclaims/status"},
		"kubelet-plugin: associated-node:patch resourceclaims.resource.k8s.io/driver eks-hybrid-dra": {
			account: "kubelet-plugin", verb: "patch", group: "resource.k8s.io", resource: "resourceclaims/status"},
		"kubelet-plugin: associated-node:update resourceclaims.resource.k8s.io/driver eks-hybrid-dra": {
			account: "kubelet-plugin", verb: "update", group: "resource.k8s.io", resource: "resourceclaims/status"},
	}
}

// shadows tells whether the API server asks for the right when it serves a request.
func (r right) shadows(q request) bool {
	s, ok := shadows()[r.String()]
	return ok && s.account == q.account && s.verb == q.verb && s.group == q.group && s.resource == q.resource
}

// missedBy tells whether a request was refused because the right is not there.
func (r right) missedBy(q request) bool {
	// What the API server asks for besides makes a status invalid.
	invalid := r.shadows(q) && q.code == http.StatusUnprocessableEntity && strings.Contains(q.message, fmt.Sprintf("resource=%q", r.resource))
	return invalid || q.refused() && r.allows(q)
}

// elsewhere names the tests of rights that are for what does not happen on a
// cluster of this version that works, nor without luck.
func elsewhere() map[string]string {
	return map[string]string{
		// After an answer that got lost.
		"controller: get resourceclaims.resource.k8s.io": "TestALostAnswer",
		// Told a second time.
		"registry-trust: patch events": "TestContainerdTrustsPrivateRegistries",
	}
}

// TestEachRightIsUsedAndNoneIsMissing takes all steps of the scenario, after
// which every right has to have been used. Where only some steps are run, only
// what was refused counts.
func TestEachRightIsUsedAndNoneIsMissing(t *testing.T) {
	rights := world.rights
	if doubles := twice(rights); len(doubles) > 0 {
		t.Errorf("rights that are given twice, so that taking one away changes nothing:\n%s", strings.Join(doubles, "\n"))
	}
	log := world.log
	used := map[right]string{}
	note := func(name string, unsettled bool) {
		news, err := log.news(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range news {
			early := unsettled && q.unauthorized && slices.ContainsFunc(rights, func(r right) bool { return r.allows(q) })
			if q.refused() && !early {
				t.Errorf("%s: refused: %s", name, q)
			}
			if q.served() {
				use(t, rights, used, q, name)
			}
		}
	}
	note("the installation", true)
	taken := 0
	for _, step := range steps() {
		t.Run(step.name, func(t *testing.T) {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := step.take(world, ctx); err != nil {
				world.Report(t.Context(), os.Stderr)
				t.Fatal(err)
			}
			t.Logf("took %.1f s", time.Since(start).Seconds())
			taken++
		})
		note(step.name, step.removes)
	}
	if taken < len(steps()) {
		t.Log("not all steps were taken, so that nothing is said about rights that nobody used")
		return
	}
	for _, r := range rights {
		if _, other := elsewhere()[r.String()]; used[r] == "" && !other {
			t.Errorf("no step uses the right %q: take it out of %s %s, or add what needs it to the scenario", r, r.role.kind, r.role.name)
		}
	}
	if some := os.Getenv("PRIVILEGES_MUTATE"); some != "" {
		takeAwayEach(t, log, rights, used, some)
	}
}

// use notes which rights a request needed.
func use(t *testing.T, rights []right, used map[right]string, q request, name string) {
	t.Helper()
	found := false
	for _, r := range rights {
		if !r.allows(q) && !r.shadows(q) {
			continue
		}
		found = true
		if used[r] == "" || used[r] == "the installation" {
			used[r] = name
		}
	}
	if !found && q.group != "authorization.k8s.io" {
		t.Errorf("%s: served by none of the release's rights: %s", name, q)
	}
}

// takeAwayEach takes away one right after the other, and fails unless the step
// that used it is refused what it needs. Unless some is 1, only rights are taken
// away that match it.
func takeAwayEach(t *testing.T, log *auditLog, rights []right, used map[right]string, some string) {
	chosen, err := regexp.Compile(some)
	if err != nil {
		t.Fatalf("PRIVILEGES_MUTATE: %v", err)
	}
	if err := world.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range rights {
		if some != "1" && !chosen.MatchString(r.String()) {
			continue
		}
		i := slices.IndexFunc(steps(), func(s step) bool { return s.name == used[r] })
		if i < 0 {
			t.Logf("not taken away: %s, which %s uses", r, used[r]+elsewhere()[r.String()])
			continue
		}
		t.Run("without "+r.String(), func(t *testing.T) {
			restore, err := world.without(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			q, err := refusal(t.Context(), log, r, steps()[i])
			if err != nil {
				t.Errorf("step %q: %v", steps()[i].name, err)
			} else {
				t.Logf("step %q: %s", steps()[i].name, q)
			}
			if err := restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := world.settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := log.news(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// afterStep is how long a request is waited for when the step has ended.
const afterStep = 30 * time.Second

// refusal takes a step until a request is refused that needs the right.
func refusal(ctx context.Context, log *auditLog, r right, step step) (request, error) {
	if _, err := log.news(ctx); err != nil {
		return request{}, err
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	var ended error
	var taking sync.WaitGroup
	done := make(chan struct{})
	taking.Go(func() {
		defer close(done)
		ended = step.take(world, limited)
	})
	defer taking.Wait()
	defer cancel()
	var after <-chan time.Time
	for last := false; ; {
		news, err := log.news(ctx)
		if err != nil {
			return request{}, err
		}
		for _, q := range news {
			if r.missedBy(q) {
				return q, nil
			}
		}
		if last {
			return request{}, errors.Join(errors.New("nothing was refused"), ended)
		}
		select {
		case <-done:
			// What programs do besides goes on when the step has ended.
			done, after = nil, time.After(afterStep)
		case <-after:
			last = true
		case <-time.After(200 * time.Millisecond):
		}
	}
}
