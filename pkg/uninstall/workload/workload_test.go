package workload

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

// helmLike is a DaemonSet as somebody applies it on the server's side.
func helmLike(args ...string) *applyappsv1.DaemonSetApplyConfiguration {
	labels := map[string]string{"app": "x"}
	return applyappsv1.DaemonSet("set", "ns").WithSpec(applyappsv1.DaemonSetSpec().
		WithSelector(applymetav1.LabelSelector().WithMatchLabels(labels)).
		WithUpdateStrategy(applyappsv1.DaemonSetUpdateStrategy().WithType(appsv1.RollingUpdateDaemonSetStrategyType).
			WithRollingUpdate(applyappsv1.RollingUpdateDaemonSet().WithMaxSurge(intstr.FromInt32(1)).WithMaxUnavailable(intstr.FromInt32(0)))).
		WithTemplate(applycorev1.PodTemplateSpec().WithLabels(labels).WithSpec(applycorev1.PodSpec().
			WithContainers(applycorev1.Container().WithName("first").WithImage("i"), applycorev1.Container().WithName("main").WithImage("i").WithArgs(args...)))))
}

func applied(t *testing.T, client *fake.Clientset, args ...string) *appsv1.DaemonSet {
	t.Helper()
	set, err := client.AppsV1().DaemonSets("ns").Apply(t.Context(), helmLike(args...), metav1.ApplyOptions{FieldManager: "helm"})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func daemonSet(client *fake.Clientset) DaemonSet {
	return DaemonSet{Client: client, Namespace: "ns", Name: "set", Container: "main", Args: func(usual []string) []string { return append([]string{"remove"}, usual...) }}
}

// What was changed is put back, and applying it anew is no conflict.
func TestSwitchAndRestoreInTheNameOfWhoeverApplied(t *testing.T) {
	client := fake.NewClientset()
	before := applied(t, client, "--a", "--b")
	d := daemonSet(client)
	for range 2 {
		if found, err := d.Switch(t.Context()); !found || err != nil {
			t.Fatal(found, err)
		}
	}
	set, err := d.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	main := set.Spec.Template.Spec.Containers[1]
	if diff := cmp.Diff([]string{"remove", "--a", "--b"}, main.Args); diff != "" || main.Image != "i" || len(set.Spec.Template.Spec.Containers) != 2 {
		t.Errorf("got %+v, args (-want +got):\n%s", main, diff)
	}
	if u := set.Spec.UpdateStrategy.RollingUpdate; u.MaxUnavailable.String() != "100%" || u.MaxSurge.String() != "0" {
		t.Errorf("got strategy %+v", u)
	}
	if err := d.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := d.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.Spec, after.Spec); diff != "" || len(after.Annotations) > 0 {
		t.Errorf("put back (-before +after), annotations %v:\n%s", after.Annotations, diff)
	}

	if _, err := d.Switch(t.Context()); err != nil {
		t.Fatal(err)
	}
	anew := applied(t, client, "--a", "--new")
	if diff := cmp.Diff([]string{"--a", "--new"}, anew.Spec.Template.Spec.Containers[1].Args); diff != "" || len(anew.Annotations) > 0 {
		t.Errorf("applied anew: annotations %v, args (-want +got):\n%s", anew.Annotations, diff)
	}
	if err := d.Restore(t.Context()); err != nil { // nothing to put back
		t.Fatal(err)
	}
	if set, err := d.get(t.Context()); err != nil || !slices.Contains(set.Spec.Template.Spec.Containers[1].Args, "--new") {
		t.Errorf("what was applied anew is put back: %v, %v", set, err)
	}
}

func TestADaemonSetThatIsMeantToRemoveIsLeftAlone(t *testing.T) {
	client := fake.NewClientset()
	applied(t, client, "remove", "--a")
	d := daemonSet(client)
	if found, err := d.Switch(t.Context()); !found || err != nil {
		t.Fatal(found, err)
	}
	if err := d.Restore(t.Context()); err != nil {
		t.Error(err)
	}
	set, err := d.get(t.Context())
	if err != nil || !slices.Equal(set.Spec.Template.Spec.Containers[1].Args, []string{"remove", "--a"}) || len(set.Annotations) > 0 {
		t.Errorf("got %v, %v", set, err)
	}
}

func TestErrorsOfDaemonSets(t *testing.T) {
	client := fake.NewClientset()
	d := daemonSet(client)
	if found, err := d.Switch(t.Context()); found || err != nil {
		t.Errorf("there is none: %v, %v", found, err)
	}
	applied(t, client, "--a")
	d.Container = "other"
	if _, err := d.Switch(t.Context()); err == nil || !strings.Contains(err.Error(), `ns/set has no container "other"`) {
		t.Errorf("got %v", err)
	}
	d.Container = "main"
	if _, err := d.Switch(t.Context()); err != nil {
		t.Fatal(err)
	}
	set, err := d.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set.Annotations[Before] = "{"
	if _, err := client.AppsV1().DaemonSets("ns").Update(t.Context(), set, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Restore(t.Context()); err == nil || !strings.Contains(err.Error(), Before) || !strings.Contains(err.Error(), "helm upgrade") {
		t.Errorf("got %v", err)
	}
}

func TestDeployment(t *testing.T) {
	for name, add := range map[string]func(t *testing.T, client *fake.Clientset){
		"applied": func(t *testing.T, client *fake.Clientset) {
			t.Helper()
			labels := map[string]string{"app": "x"}
			config := applyappsv1.Deployment("d", "ns").WithSpec(applyappsv1.DeploymentSpec().WithReplicas(3).
				WithSelector(applymetav1.LabelSelector().WithMatchLabels(labels)).
				WithTemplate(applycorev1.PodTemplateSpec().WithLabels(labels).WithSpec(applycorev1.PodSpec().WithContainers(applycorev1.Container().WithName("c").WithImage("i")))))
			if _, err := client.AppsV1().Deployments("ns").Apply(t.Context(), config, metav1.ApplyOptions{FieldManager: "helm"}); err != nil {
				t.Fatal(err)
			}
		},
		"created": func(t *testing.T, client *fake.Clientset) {
			t.Helper()
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "d"}, Spec: appsv1.DeploymentSpec{
				Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}},
			}}
			if _, err := client.AppsV1().Deployments("ns").Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			add(t, client)
			d := Deployment{Client: client, Namespace: "ns", Name: "d"}
			if _, err := client.CoreV1().Pods("ns").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"app": "x"}}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			replicas := func() int32 {
				t.Helper()
				deployment, err := d.get(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return *deployment.Spec.Replicas
			}
			for range 2 {
				if found, err := d.Stop(t.Context()); !found || err != nil || replicas() != 0 {
					t.Fatalf("stopped: %v, %v, %d replicas", found, err, replicas())
				}
			}
			if stopped, err := d.Stopped(t.Context()); stopped || err != nil {
				t.Errorf("a pod is left, and yet stopped: %v, %v", stopped, err)
			}
			if err := client.CoreV1().Pods("ns").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if stopped, err := d.Stopped(t.Context()); !stopped || err != nil {
				t.Errorf("no pod is left, and yet not stopped: %v, %v", stopped, err)
			}
			for range 2 {
				if err := d.Restore(t.Context()); err != nil || replicas() != 3 {
					t.Fatalf("put back: %v, %d replicas", err, replicas())
				}
			}
		})
	}
}
