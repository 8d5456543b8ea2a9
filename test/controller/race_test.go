package controller

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/rivals"
)

const (
	// racers is how many nodes change hands all the while.
	racers = 4
	// settle is how long a node that changes hands is given to nobody: on a busy
	// machine what an allocator has decided may be written late.
	settle = 8 * time.Second
)

// Both allocators give away devices of the same nodes, whichever is the one at
// the time, as fast as they can. RACE_MINUTES says for how long.
func TestNoDeviceIsGivenTwiceByTwoAllocators(t *testing.T) {
	minutes, err := strconv.Atoi(cmp.Or(os.Getenv("RACE_MINUTES"), "1"))
	if err != nil {
		t.Fatalf("RACE_MINUTES: %v", err)
	}
	s := newSite(t, racers)
	s.start(settings{})
	s.eventually("the namespace takes pods", func() (bool, string) {
		_, err := cluster.Client.CoreV1().ServiceAccounts(s.name).Get(s.ctx, "default", metav1.GetOptions{})
		return err == nil, fmt.Sprint(err)
	})
	result, err := s.race(time.Duration(minutes) * time.Minute).Run(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the controller allocated %d claims, kube-scheduler %d; nodes changed hands %d times", result.ByController, result.ByScheduler, result.Handovers)
	if result.ByController == 0 || result.ByScheduler == 0 {
		t.Error("not both allocators took part")
	}
	for _, what := range result.Twice {
		t.Error(what)
	}
	fmt.Printf("race_double_allocations %d count\n", len(result.Twice))
}

// race is for all nodes of the site.
func (s *site) race(lasts time.Duration) rivals.Race {
	var mu sync.Mutex
	generations := map[string]int64{}
	var managed, plain []resourceapi.DeviceClaim
	for count := range int64(4) {
		managed = append(managed, claimFor("", s.class, count+1).Spec.Devices)
		plain = append(plain, claimFor("", s.plain, count+1).Spec.Devices)
	}
	return rivals.Race{
		Client: cluster.Client, Namespace: s.name, Nodes: s.nodes, Managed: managed, Plain: plain, Settle: settle, Lasts: lasts,
		Parts: func(device string) []string { return []string{device} },
		Hand: func(_ context.Context, node string, to rivals.Allocator) error {
			mu.Lock()
			generations[node]++
			generation := 1 + generations[node]
			mu.Unlock()
			return s.write(node, handedTo(to), generation)
		},
		Place: func(spec *corev1.PodSpec) {
			spec.NodeSelector = map[string]string{"site": s.name}
			spec.Tolerations = []corev1.Toleration{{Key: publishedOnly, Operator: corev1.TolerationOpExists}}
		},
	}
}

func handedTo(to rivals.Allocator) given {
	return map[rivals.Allocator]given{rivals.Controller: managed, rivals.Settling: settling, rivals.Scheduler: unmanaged}[to]
}
