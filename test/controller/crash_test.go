package controller

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A controller ends after each number of writes, with and without the answer to
// the last one, and another one goes on.
func TestACrashBetweenAnyTwoWrites(t *testing.T) {
	tests := map[string]struct {
		nodes int
		begin func(s *site)
		done  func(s *site)
		// writes is how many it takes at most.
		writes int
	}{
		"claim": {nodes: 1, writes: 2,
			begin: func(s *site) { s.claim("c", 8, nil) },
			done:  func(s *site) { s.allAllocated(1) },
		},
		"gang": {nodes: 2, writes: 10,
			begin: func(s *site) { s.gang("train", 4, 0, 4, 4) },
			done: func(s *site) {
				s.allAllocated(4)
				s.eventually("no plan is left", func() (bool, string) { return s.plans() == 0, "" })
			},
		},
		"gang that loses a claim": {nodes: 2, writes: 10,
			begin: func(s *site) { s.gang("train", 4, 0, 4, 4) },
			done: func(s *site) {
				if err := cluster.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, "train-2", metav1.DeleteOptions{}); err != nil {
					s.t.Fatal(err)
				}
				s.claim("other", 8, nil)
				s.claim("another", 8, nil)
				s.eventually("others have what the gang gave back", func() (bool, string) {
					names := s.withDevices()
					return len(names) == 2 && names[0] == "another" && names[1] == "other" && s.plans() == 0, fmt.Sprint(names, s.plans())
				})
				s.noneTwice()
			},
		},
		"unused claim": {nodes: 1, writes: 4,
			begin: func(s *site) { s.claim("c", 8, map[string]string{"eks-hybrid-dra/unused-after": "1s"}) },
			done: func(s *site) {
				s.eventually("the claim is freed", func() (bool, string) {
					claim := s.get("c")
					return claim.Status.Allocation == nil && claim.Annotations["eks-hybrid-dra/freed-unused"] != "", fmt.Sprint(claim.Annotations)
				})
			},
		},
	}
	for name, test := range tests {
		for _, answer := range []bool{true, false} {
			for after := range test.writes {
				if answer {
					after++ // the answer to the first write is the first to get lost
				}
				t.Run(fmt.Sprintf("%s/after %d writes, last answer lost %t", name, after, answer), func(t *testing.T) {
					t.Parallel()
					s := newSite(t, test.nodes)
					f := &faults{after: after, answer: answer, crashed: make(chan struct{})}
					first := s.start(settings{faults: f})
					test.begin(s)
					select {
					case <-f.crashed:
					case <-time.After(patience):
						t.Fatalf("the controller had not crashed after %d writes", f.writes)
					}
					first.stop()
					s.noneTwice()
					s.start(settings{})
					test.done(s)
				})
			}
		}
	}
}

// An answer gets lost and the controller lives on: it finds out what happened.
func TestALostAnswer(t *testing.T) {
	for after := 1; after <= 10; after++ {
		t.Run(fmt.Sprint("write ", after), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 2)
			f := &faults{after: after, answer: true, once: true, crashed: make(chan struct{})}
			s.start(settings{faults: f})
			s.gang("train", 4, 0, 4, 4)
			s.allAllocated(4)
			s.eventually("no plan is left", func() (bool, string) { return s.plans() == 0, "" })
			<-f.crashed
		})
	}
}
