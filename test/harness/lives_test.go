package harness

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newLives() *Lives {
	return &Lives{byID: map[string]Life{}, changed: make(chan struct{}), done: make(chan struct{})}
}

func TestTheLifeOfAContainerIsReadFromEvents(t *testing.T) {
	l := newLives()
	// As containerd 2.4 tells it, cut where a pipe may cut.
	for _, part := range []string{
		"2026-01-02 15:04:05.1 +0000 UTC k8s.io /images/update {\"name\":\"i\"}\n2026-01-02 15:04:06.000000001 +0000 UTC k8s.io /tasks/create {\"container_id\":\"c\",",
		"\"pid\":7}\n",
		"2026-01-02 15:04:07 +0000 UTC k8s.io /tasks/start {\"container_id\":\"c\",\"pid\":7}\n",
		// A program that was run in the container besides.
		"2026-01-02 15:04:08 +0000 UTC k8s.io /tasks/exit {\"container_id\":\"c\",\"id\":\"test\",\"pid\":8,\"exited_at\":{\"seconds\":1}}\n",
		"2026-01-02 15:04:09.5 +0000 UTC k8s.io /tasks/exit {\"container_id\":\"c\",\"id\":\"c\",\"pid\":7,\"exited_at\":{\"seconds\":1767366249,\"nanos\":250000000}}\n",
	} {
		if _, err := l.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	want := Life{
		Made:    time.Date(2026, 1, 2, 15, 4, 6, 1, time.UTC),
		Started: time.Date(2026, 1, 2, 15, 4, 7, 0, time.UTC),
		Ended:   time.Date(2026, 1, 2, 15, 4, 9, 250_000_000, time.UTC),
	}
	if diff := cmp.Diff(want, l.Of("c")); diff != "" {
		t.Errorf("life (-want +got):\n%s", diff)
	}
}

func TestWaitingForAContainerEndsWithTheWatching(t *testing.T) {
	l := newLives()
	l.err = errors.New("the container runtime is gone")
	close(l.done)
	if _, err := l.Wait(context.Background(), "c", func(Life) bool { return false }); !errors.Is(err, l.err) {
		t.Errorf("error %v, want %v", err, l.err)
	}
}

func TestAbsenceIsTheTimeWithTooFewDevices(t *testing.T) {
	a := &Absence{want: 8, devices: map[string]int{}, cancel: func() {}, ended: make(chan struct{})}
	close(a.ended)
	a.note("a", 8)
	a.note("a", 0)
	a.since = a.since.Add(-2 * time.Second)
	a.note("b", 6)
	a.note("a", 2)
	a.note("b", 7)
	got := a.Stop()
	if got < 2*time.Second || got > 3*time.Second {
		t.Errorf("absent for %v, want 2 s", got)
	}
}
