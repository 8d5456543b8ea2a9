package controller

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// writer is the way of a controller to the API server. It notes when allocations
// came through.
type writer struct {
	mu          sync.Mutex
	first, last time.Time
	count       int
}

func (w *writer) way(next http.RoundTripper) http.RoundTripper { return &noting{next, w} }

type noting struct {
	next http.RoundTripper
	*writer
}

// RoundTrip implements [http.RoundTripper].
func (n *noting) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := n.next.RoundTrip(r)
	if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/status") && strings.Contains(r.URL.Path, "/resourceclaims/") && err == nil && response.StatusCode == http.StatusOK {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.last = time.Now(); n.count == 0 {
			n.first = n.last
		}
		n.count++
	}
	return response, err
}

func (w *writer) period() (first, last time.Time, count int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first, w.last, w.count
}

// Two controllers that both believe to lead, for as long as a lease may overlap
// and longer. What they give twice they take back while nobody uses it.
func TestTwoLeadersAtOnce(t *testing.T) {
	t.Parallel()
	// More than they ask for: what one of them takes back may be given elsewhere
	// again, and leave gaps that are too small for the gang.
	s := newSite(t, 9)
	var one, two writer
	for _, w := range []*writer{&one, &two} {
		<-s.start(settings{way: w.way}).started
	}
	for i := range 16 {
		s.claim(fmt.Sprint("c-", i), 2, nil)
	}
	s.gang("train", 4, 0, 4, 4)
	s.givenOnce(20)
	// Else the test would say nothing: each must have written while the other did.
	more := 0
	s.eventually("both leaders have written in the same period", func() (bool, string) {
		first, last, n := one.period()
		begin, end, m := two.period()
		if n > 1 && m > 1 && first.Before(end) && begin.Before(last) {
			t.Logf("allocations that came through: %d and %d, in the same %s", n, m, min(last.Sub(first), end.Sub(begin)))
			return true, ""
		}
		s.deleteClaim(fmt.Sprint("c-", more))
		s.claim(fmt.Sprint("c-", more+16), 2, nil)
		more++
		s.givenOnce(20)
		return false, fmt.Sprintf("%d writes of one from %s to %s, %d of the other from %s to %s", n, first, last, m, begin, end)
	})
}

// givenOnce waits until so many claims have devices, and none has another's. In
// between, two leaders may give one twice.
func (s *site) givenOnce(want int) {
	s.t.Helper()
	s.eventually("all claims have devices, and none has another's", func() (bool, string) {
		holder, allocated, twice := map[string]string{}, 0, ""
		for _, claim := range s.list() {
			if claim.Status.Allocation == nil {
				continue
			}
			allocated++
			for _, result := range claim.Status.Allocation.Devices.Results {
				device := result.Pool + "/" + result.Device
				if holder[device] != "" {
					twice = device
				}
				holder[device] = claim.Name
			}
		}
		return allocated == want && twice == "", fmt.Sprint(allocated, " allocated, given twice: ", twice)
	})
}
