package controller

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// counter is the way of a controller to the API server that notes each request.
type counter struct {
	mu   sync.Mutex
	seen []string
}

func (c *counter) way(next http.RoundTripper) http.RoundTripper { return &counting{next, c} }

type counting struct {
	next http.RoundTripper
	*counter
}

// RoundTrip implements [http.RoundTripper].
func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.seen = append(c.seen, r.Method+" "+r.URL.RequestURI())
	c.mu.Unlock()
	return c.next.RoundTrip(r)
}

func (c *counter) requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.seen...)
}

// A controller that has nothing to do asks the API server for nothing, also while
// claims and gangs wait. Time passes here as the lease of another leader is
// renewed, every 2 s.
func TestAnIdleControllerAsksForNothing(t *testing.T) {
	t.Parallel()
	const renewals = 6
	s := newSite(t, 2)
	var way counter
	s.start(settings{way: way.way})
	s.claim("a", 8, nil)
	s.allocated("a")
	s.pod("p", nil, "a")
	s.bound("p")
	s.gang("train", 3, 0, 3, 4)
	s.event("train-0", "GangTimedOut", "find no place together")
	s.claim("b", 8, nil)
	s.allocated("b")
	s.claim("waits", 1, nil)
	s.claim("impossible", 9, nil)
	before, quiet, renewed := -1, 0, ""
	s.eventually(fmt.Sprintf("the controller is quiet while a lease is renewed %d times", renewals), func() (bool, string) {
		lease, err := cluster.Client.CoordinationV1().Leases(harness.Namespace).Get(s.ctx, "eks-hybrid-dra-controller", metav1.GetOptions{})
		if err != nil || lease.Spec.RenewTime == nil {
			return false, fmt.Sprint(err)
		}
		seen := way.requests()
		if len(seen) != before {
			before, quiet, renewed = len(seen), -1, "" // the first renewal begins the period
		}
		if now := lease.Spec.RenewTime.String(); now != renewed {
			quiet, renewed = quiet+1, now
		}
		return quiet >= renewals, fmt.Sprintf("%d renewals; the latest requests: %q", quiet, seen[max(0, len(seen)-5):])
	})
	if names := s.withDevices(); len(names) != 2 {
		t.Errorf("allocated: %v", names)
	}
}
