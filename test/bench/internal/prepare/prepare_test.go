package prepare

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/plugin"
)

func TestAlternatelyChangesWhoIsFirst(t *testing.T) {
	s := &Suite{subjects: []*subject{{whose: "a"}, {whose: "b"}}}
	var order []string
	if err := s.alternately(3, func(subject *subject) error {
		order = append(order, subject.whose)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "b", "a", "a", "b"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	err := s.alternately(1, func(*subject) error { return exec.ErrNotFound })
	if err == nil || !strings.Contains(err.Error(), exec.ErrNotFound.Error()) {
		t.Errorf("error %v", err)
	}
}

func TestHolderCountsDevicesGivenTwice(t *testing.T) {
	var h holder
	h.take()
	h.giveBack()
	h.take()
	if h.twice != 0 {
		t.Errorf("given twice %d times, but it was given back in between", h.twice)
	}
	h.take()
	if h.twice != 1 {
		t.Errorf("given twice %d times, want 1", h.twice)
	}
}

func TestBelongsTo(t *testing.T) {
	const pod = "4bfab11f-a496-4397-a452-a346993e9d36"
	for cgroups, want := range map[string]bool{
		"4:memory:/kubepods/besteffort/pod" + pod + "/e2378":                                               true,
		"0::/kubepods.slice/kubepods-pod4bfab11f_a496_4397_a452_a346993e9d36.slice/cri-containerd-1.scope": true,
		"0::/kubepods.slice/kubepods-pod5bfab11f_a496_4397_a452_a346993e9d36.slice/cri-containerd-1.scope": false,
		"0::/user.slice": false,
	} {
		if got := belongsTo(cgroups, pod); got != want {
			t.Errorf("%s: %v, want %v", cgroups, got, want)
		}
	}
}

func TestWaitForTheEndOfAProcess(t *testing.T) {
	child := exec.CommandContext(t.Context(), "sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(child.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{fd: fd}
	ended := make(chan error, 1)
	go func() { ended <- p.wait(t.Context()) }()
	select {
	case err := <-ended:
		t.Fatalf("the process runs, but wait returned %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
	_ = child.Wait() // it was killed
	if _, err := findContainer("no-such-pod"); err == nil {
		t.Error("found a process of a pod that does not exist")
	}
}

func TestFiguresOfBothDrivers(t *testing.T) {
	s := &Suite{Size: Full(), subjects: []*subject{{}, {kind: plugin.Kind{Title: "peer v1"}}}}
	for _, name := range []string{startToSlices, rssIdle, rssWarm, rssAfter, prepareAlone, unprepareAlone, prepareAtOnce, undoAtOnce, crowdTotal, crowdWait, crowdTwice} {
		s.report.Keep(name, figures.Ours, figures.Samples{1, 2, 3})
		s.report.Keep(name, figures.Peer, figures.Samples{2, 4, 6})
	}
	for _, name := range []string{podStartPlain, podStartClaim, nodePartPlain, nodePartClaim} {
		s.report.Keep(name, figures.Ours, figures.Samples{100, 139, 200})
	}
	s.compute()
	got := map[string]float64{}
	unmet := []string{}
	for _, row := range s.report.Rows {
		got[row.Name] = row.Ours
		for _, d := range row.Demands {
			if !d.Met {
				unmet = append(unmet, row.Name)
			}
		}
	}
	if _, ok := got[forceDelete]; ok {
		t.Error("has a figure that was not measured")
	}
	for name, want := range map[string]float64{"prepare_alone_p50": 2, "prepare_alone_p99": 3, "cycle_64_longest": 3, crowdTwice: 6, "rss_after_10000": 2, podStartClaim: 139} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if diff := cmp.Diff([]string{crowdTwice}, unmet); diff != "" {
		t.Errorf("demands that are not met (-want +got):\n%s", diff)
	}
	if s.PeerTitle() != "peer v1" {
		t.Errorf("peer %q", s.PeerTitle())
	}
}
