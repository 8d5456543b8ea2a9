package nodelabels

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

const (
	h100 = "NVIDIA H100 80GB HBM3"
	h200 = "NVIDIA H200"
)

// bench is a node with a keeper of its labels.
type bench struct {
	*Keeper
	t      *testing.T
	client *fake.Clientset
	now    time.Time
}

func newBench(t *testing.T) *bench {
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "dgx-0", Labels: map[string]string{"zone": "a"}}})
	b := &bench{t: t, client: client, now: time.Now()}
	b.restart(true)
	return b
}

// restart makes another instance of the plugin keep the labels.
func (b *bench) restart(enabled bool) {
	b.t.Helper()
	keeper, err := New(Options{
		Client: b.client, Node: "dgx-0", Manager: "eks-hybrid-dra-node-labels",
		Config: v1alpha1.NodeLabelsConfig{Enabled: enabled, GPU: "gpu", GPUCount: "gpu-count"},
	}, prometheus.NewRegistry())
	if err != nil {
		b.t.Fatal(err)
	}
	b.Keeper = keeper
}

// step lets time pass and returns after which time the keeper looks again.
func (b *bench) step(after time.Duration) (time.Duration, error) {
	b.now = b.now.Add(after)
	return b.Keeper.step(b.t.Context(), b.now)
}

// wants has the keeper look once, and checks the node's labels after that.
func (b *bench) wants(after time.Duration, labels map[string]string) {
	b.t.Helper()
	if _, err := b.step(after); err != nil {
		b.t.Fatal(err)
	}
	b.has(labels)
}

func (b *bench) has(labels map[string]string) {
	b.t.Helper()
	node, err := b.client.CoreV1().Nodes().Get(b.t.Context(), "dgx-0", metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	want := map[string]string{"zone": "a"}
	for key, value := range labels {
		want[key] = value
	}
	if diff := cmp.Diff(want, node.Labels); diff != "" {
		b.t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// somebody sets a label, each by a program of its own.
func (b *bench) somebody(key, value string) {
	b.t.Helper()
	_, err := b.client.CoreV1().Nodes().Apply(b.t.Context(), corev1ac.Node("dgx-0").WithLabels(map[string]string{key: value}),
		metav1.ApplyOptions{FieldManager: "kubectl-" + key, Force: true})
	if err != nil {
		b.t.Fatal(err)
	}
}

func gpus(n int, product string) []string {
	products := make([]string, n)
	for i := range products {
		products[i] = product
	}
	return products
}

func TestLabelsFollowWhatIsFound(t *testing.T) {
	b := newBench(t)
	b.wants(0, nil) // nothing is known yet
	b.Found(nil, true)
	b.wants(0, nil)
	b.Found(gpus(8, h200), true)
	b.wants(0, map[string]string{"gpu": "h200", "gpu-count": "8"})
	b.Found(gpus(8, h100), true)
	b.wants(0, map[string]string{"gpu": "h100", "gpu-count": "8"})
	b.Found(append(gpus(4, h100), gpus(5, h200)...), true)
	b.wants(0, map[string]string{"gpu": "mixed", "gpu-count": "9"})
}

func TestFewerGPUsAreBelievedWhenTheyStayFewer(t *testing.T) {
	b := newBench(t)
	all := map[string]string{"gpu": "h200", "gpu-count": "8"}
	b.Found(gpus(8, h200), true)
	b.wants(0, all)

	// As long as the driver cannot tell, nothing is believed.
	b.restart(true)
	b.Found(nil, false)
	b.wants(0, all)
	b.wants(time.Hour, all)
	// It loads, and has one GPU after the other.
	b.Found(gpus(3, h200), true)
	b.wants(0, all)
	if next, err := b.step(time.Minute); err != nil || next != time.Minute {
		t.Errorf("looks again after %s, %v, want a minute", next, err)
	}
	b.Found(gpus(8, h200), true)
	b.wants(0, all)
	// One is gone for good.
	b.Found(gpus(7, h200), true)
	b.wants(0, all)
	b.wants(steadyFor-time.Second, all)
	b.wants(time.Second, map[string]string{"gpu": "h200", "gpu-count": "7"})
	// And then all.
	b.Found(nil, true)
	b.wants(0, map[string]string{"gpu": "h200", "gpu-count": "7"})
	b.wants(steadyFor, nil)
}

func TestLabelsGoWhenTheyAreSwitchedOff(t *testing.T) {
	b := newBench(t)
	b.Found(gpus(8, h200), true)
	b.wants(0, map[string]string{"gpu": "h200", "gpu-count": "8"})
	b.restart(false)
	b.wants(0, nil)

	b.restart(true)
	b.Found(gpus(8, h200), true)
	b.wants(0, map[string]string{"gpu": "h200", "gpu-count": "8"})
	if err := b.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.has(nil)
	writes := len(b.client.Actions())
	if err := b.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(b.client.Actions()) - writes; got != 1 {
		t.Errorf("removing what is not there takes %d calls, want only the question", got)
	}
}

func TestWhatSomebodyElseHasSetStaysAndIsTold(t *testing.T) {
	b := newBench(t)
	b.somebody("gpu", "our-best")
	b.Found(gpus(8, h200), true)
	next, err := b.step(0)
	var conflict *conflictError
	if !errors.As(err, &conflict) {
		t.Fatalf("got %v, want that a label is somebody else's", err)
	}
	for _, want := range []string{"node dgx-0", "gpu (", "kubectl-gpu", "kubectl label node dgx-0 gpu-", "nodeLabels"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	if next != lookEvery {
		t.Errorf("asks again after %s, want %s", next, lookEvery)
	}
	b.has(map[string]string{"gpu": "our-best", "gpu-count": "8"})
	if got := testutil.ToFloat64(b.conflicts.WithLabelValues("gpu")); got != 1 {
		t.Errorf("the metric says %v", got)
	}

	// Somebody takes away one of ours, too.
	b.somebody("gpu-count", "4")
	if _, err := b.step(0); !errors.As(err, &conflict) || len(conflict.labels) != 2 {
		t.Errorf("got %v, want that both labels are somebody else's", err)
	}
	b.has(map[string]string{"gpu": "our-best", "gpu-count": "4"})

	// The same value is no conflict, and theirs stays when ours goes.
	b.somebody("gpu", "h200")
	b.somebody("gpu-count", "8")
	b.wants(0, map[string]string{"gpu": "h200", "gpu-count": "8"})
	if got := testutil.CollectAndCount(b.conflicts); got != 0 {
		t.Errorf("the metric still has %d series", got)
	}
}

func TestALabelThatWasRemovedComesBack(t *testing.T) {
	b := newBench(t)
	b.Found(gpus(8, h200), true)
	all := map[string]string{"gpu": "h200", "gpu-count": "8"}
	b.wants(0, all)
	node, err := b.client.CoreV1().Nodes().Get(t.Context(), "dgx-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	delete(node.Labels, "gpu")
	if _, err := b.client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{FieldManager: "kubectl-label"}); err != nil {
		t.Fatal(err)
	}
	b.wants(lookEvery, all)
	writes := len(b.client.Actions())
	b.wants(lookEvery, all)
	if got := len(b.client.Actions()) - writes; got != 2 { // one of them is this test's
		t.Errorf("looking after labels that are there takes %d calls, want one", got-1)
	}
}

func TestAMissingPermissionIsExplained(t *testing.T) {
	b := newBench(t)
	b.client.PrependReactor("patch", "nodes", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "dgx-0", errors.New("no"))
	})
	b.Found(gpus(8, h200), true)
	next, err := b.step(0)
	if err == nil || !strings.Contains(err.Error(), "gpu-count of node dgx-0") || !strings.Contains(err.Error(), "nodeConfig.nodeLabels") {
		t.Errorf("got %v, want the labels, the node and the way out", err)
	}
	if next != retryAfter {
		t.Errorf("tries again after %s, want %s", next, retryAfter)
	}
}

func TestRunFollowsNewsUntilItIsStopped(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Run(ctx)
	}()
	b.Found(gpus(8, h200), true)
	deadline := time.After(30 * time.Second)
	for {
		node, err := b.client.CoreV1().Nodes().Get(t.Context(), "dgx-0", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if node.Labels["gpu"] == "h200" {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("the node's labels are %v", node.Labels)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	<-done

	var none *Keeper
	none.Found(nil, true)
	none.Run(ctx)
	if err := none.Remove(ctx); err != nil {
		t.Error(err)
	}
}

func TestModel(t *testing.T) {
	for product, want := range map[string]string{
		"NVIDIA H200": "h200", "NVIDIA H100 80GB HBM3": "h100", "NVIDIA A100-SXM4-80GB": "a100", "Tesla V100-SXM2-32GB": "v100",
		"NVIDIA GH200 480GB": "gh200", "NVIDIA L40S": "l40s", "NVIDIA B200": "b200", "Tesla T4": "t4",
		"NVIDIA GeForce RTX 4090": "geforce-rtx-4090", "Quadro": "quadro", "": "", "???": "",
		"NVIDIA " + strings.Repeat("long ", 20): strings.TrimSuffix(strings.Repeat("long-", 13)[:63], "-"),
	} {
		if got := Model(product); got != want {
			t.Errorf("Model(%q) is %q, want %q", product, got, want)
		}
	}
}
