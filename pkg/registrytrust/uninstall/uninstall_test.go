package uninstall

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func removing() []string { return []string{"remove", "--stay"} }

func daemonSet(status appsv1.DaemonSetStatus) *appsv1.DaemonSet {
	labels := map[string]string{"app": "registry-trust"}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "ds", Generation: 2},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "registry-trust", Image: "image", Args: []string{"--v=4"}}}}},
		},
		Status: status,
	}
}

func pod(node string, args []string, ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod-" + node, Labels: map[string]string{"app": "registry-trust"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "registry-trust", Args: args}}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

func run(ctx context.Context, objects ...runtime.Object) (*fake.Clientset, error) {
	client := fake.NewClientset(objects...)
	return client, DaemonSet{Client: client, Namespace: "ns", Name: "ds", Container: "registry-trust", Args: removing(), Poll: time.Millisecond}.Run(ctx)
}

func TestEveryNodeRemovesBeforeItReturns(t *testing.T) {
	client, err := run(t.Context(), daemonSet(appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 2, UpdatedNumberScheduled: 2, NumberAvailable: 2}))
	if err != nil {
		t.Fatal(err)
	}
	set, err := client.AppsV1().DaemonSets("ns").Get(t.Context(), "ds", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []corev1.Container{{Name: "registry-trust", Image: "image", Args: removing()}}
	if diff := cmp.Diff(want, set.Spec.Template.Spec.Containers); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
	if got := set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String(); got != "100%" {
		t.Errorf("at most %s of the nodes at once", got)
	}
}

func TestNodesThatAreNotDoneAreNamed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := run(ctx,
		daemonSet(appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, UpdatedNumberScheduled: 2, NumberAvailable: 1}),
		pod("done", removing(), corev1.ConditionTrue), pod("down", removing(), corev1.ConditionFalse), pod("old", []string{"--v=4"}, corev1.ConditionTrue))
	if err == nil || !strings.Contains(err.Error(), "have not: down, old: ") {
		t.Errorf("error %v", err)
	}
}

func TestAStatusFromBeforeTheChangeDoesNotCount(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := run(ctx, daemonSet(appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: 1, UpdatedNumberScheduled: 1, NumberAvailable: 1}))
	if err == nil || !strings.Contains(err.Error(), "no pod yet") {
		t.Errorf("error %v", err)
	}
}

func TestWithoutADaemonSetNothingIsLeft(t *testing.T) {
	if _, err := run(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhatForbidsItIsTold(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("patch", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, context.DeadlineExceeded
	})
	err := DaemonSet{Client: client, Namespace: "ns", Name: "ds"}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "DaemonSet ns/ds") {
		t.Errorf("error %v", err)
	}
}
