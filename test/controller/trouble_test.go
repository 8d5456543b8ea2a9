package controller

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mishap is what happens to a request on its way.
type mishap int

const (
	fine mishap = iota
	throttled
	throttledForASecond
	conflict
	broken
	lostRequest
	lostAnswer
)

var errReset = errors.New("connection reset by peer")

// trouble is the way of a controller to an API server that is not well. Watches
// and lists pass, and so do events: those are sent in other ways.
type trouble struct {
	// happens is told the number of a request and the time since the first.
	happens func(number int, since time.Duration) mishap

	mu       sync.Mutex
	began    time.Time
	requests int
	mishaps  int
}

func (t *trouble) way(next http.RoundTripper) http.RoundTripper { return &troubled{next, t} }

type troubled struct {
	next http.RoundTripper
	*trouble
}

// RoundTrip implements [http.RoundTripper].
func (t *troubled) RoundTrip(r *http.Request) (*http.Response, error) {
	path := r.URL.Path
	ours := strings.Contains(path, "/resourceclaims/") || strings.HasSuffix(path, "/configmaps") && r.Method != http.MethodGet || strings.Contains(path, "/configmaps/")
	if !ours {
		return t.next.RoundTrip(r)
	}
	switch what := t.count(); what {
	case throttled, throttledForASecond, conflict, broken:
		return refusal(r, what)
	case lostRequest:
		return nil, errReset
	case lostAnswer:
		response, err := t.next.RoundTrip(r)
		if err == nil {
			_ = response.Body.Close()
		}
		return nil, errReset
	default:
		return t.next.RoundTrip(r)
	}
}

// count counts a request and says what happens to it.
func (t *trouble) count() mishap {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.requests == 0 {
		t.began = time.Now()
	}
	t.requests++
	what := t.happens(t.requests, time.Since(t.began))
	if what != fine {
		t.mishaps++
	}
	return what
}

func (t *trouble) counted() (requests, mishaps int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests, t.mishaps
}

// refusal is an answer as the API server gives it.
func refusal(r *http.Request, what mishap) (*http.Response, error) {
	status := map[mishap]metav1.Status{
		throttled:           {Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests},
		throttledForASecond: {Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests},
		conflict:            {Code: http.StatusConflict, Reason: metav1.StatusReasonConflict},
		broken:              {Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError},
	}[what]
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	status.Status, status.Message = metav1.StatusFailure, "made by the test"
	body, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if what == throttledForASecond {
		header.Set("Retry-After", "1")
	}
	return &http.Response{
		StatusCode: int(status.Code), Status: fmt.Sprint(status.Code), Header: header, Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}

// Claims and a gang are allocated by an API server that is not well, for a while
// or a part of the time, and it is not asked all the time.
func TestAnAPIServerThatIsNotWell(t *testing.T) {
	// outage is for how long nothing works. Pauses double, so that there are
	// about ten tries of a claim in it.
	const outage = 3 * time.Second
	during := func(what mishap) func(int, time.Duration) mishap {
		return func(_ int, since time.Duration) mishap {
			if since < outage {
				return what
			}
			return fine
		}
	}
	tests := map[string]func(number int, since time.Duration) mishap{
		"all goes well":          func(int, time.Duration) mishap { return fine },
		"throttles":              during(throttled),
		"throttles, with a time": during(throttledForASecond),
		"conflicts":              during(conflict),
		"fails":                  during(broken),
		"is not there":           during(lostRequest),
		"answers get lost":       during(lostAnswer),
		"a bit of everything": func(number int, _ time.Duration) mishap {
			return map[int]mishap{1: throttledForASecond, 3: conflict, 4: broken, 6: lostRequest, 8: lostAnswer, 9: throttled}[number%11]
		},
	}
	const claims, members = 4, 4
	for name, happens := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 3)
			way := &trouble{happens: happens}
			s.start(settings{way: way.way})
			for i := range claims {
				s.claim(fmt.Sprint("c-", i), 2, nil)
			}
			s.gang("train", members, 0, members, 4)
			s.allAllocated(claims + members)
			s.eventually("no plan is left", func() (bool, string) { return s.plans() == 0, "" })
			requests, mishaps := way.counted()
			t.Logf("%d requests, of which %d went wrong", requests, mishaps)
			// Two for each claim and two for the plan are needed. A loop without
			// pauses would make thousands.
			if most := 10 * (2*(claims+members) + 2); requests > most {
				t.Errorf("%d requests, want at most %d", requests, most)
			}
			if name == "all goes well" && requests != 2*(claims+members)+2 {
				t.Errorf("%d requests, though %d are enough", requests, 2*(claims+members)+2)
			}
		})
	}
}
