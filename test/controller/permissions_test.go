package controller

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// asController is how the deployed controller talks to the API server.
func asController() *rest.Config {
	config := rest.CopyConfig(cluster.Rest)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + harness.Namespace + ":eks-hybrid-dra-controller",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + harness.Namespace, "system:authenticated"},
	}
	return config
}

// The plugin of every node reads its configuration from a ConfigMap beside the
// plans of gangs.
func TestTheControllerWritesNoConfigMapsButPlans(t *testing.T) {
	t.Parallel()
	client, err := kubernetes.NewForConfig(asController())
	if err != nil {
		t.Fatal(err)
	}
	ctx, maps, admin := t.Context(), client.CoreV1().ConfigMaps(harness.Namespace), cluster.Client.CoreV1().ConfigMaps(harness.Namespace)
	made := func(labels map[string]string) *corev1.ConfigMap {
		t.Helper()
		object, err := admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "permissions-", Labels: labels}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := admin.Delete(context.WithoutCancel(ctx), object.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		})
		return object
	}
	plan, other := made(map[string]string{gangplan.Label: "true"}), made(nil)
	config, err := admin.Get(ctx, harness.DriverName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	with := func(object *corev1.ConfigMap, change func(*corev1.ConfigMap)) *corev1.ConfigMap {
		object = object.DeepCopy()
		change(object)
		return object
	}
	dryRun := []string{metav1.DryRunAll}
	update := func(object *corev1.ConfigMap) error {
		_, err := maps.Update(ctx, object, metav1.UpdateOptions{DryRun: dryRun})
		return err
	}
	create := func(maps typedcorev1.ConfigMapInterface, labels map[string]string) error {
		_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "permissions-", Labels: labels}}, metav1.CreateOptions{DryRun: dryRun})
		return err
	}
	for name, err := range map[string]error{
		"the plugin's configuration":                       update(with(config, func(c *corev1.ConfigMap) { c.Data = map[string]string{"config.yaml": ""} })),
		"the plugin's configuration, as if it were a plan": update(with(config, func(c *corev1.ConfigMap) { c.Labels = plan.Labels })),
		"a plan that is none any more":                     update(with(plan, func(c *corev1.ConfigMap) { c.Labels = nil })),
		"a ConfigMap that goes":                            maps.Delete(ctx, other.Name, metav1.DeleteOptions{DryRun: dryRun}),
		"a new ConfigMap":                                  create(maps, nil),
		"a new ConfigMap with another value of the label":  create(maps, map[string]string{gangplan.Label: "false"}),
	} {
		if !apierrors.IsForbidden(err) || !strings.Contains(fmt.Sprint(err), "only ConfigMaps that have the label eks-hybrid-dra/gang-plan=true") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"a new plan":       create(maps, plan.Labels),
		"a plan":           update(with(plan, func(c *corev1.ConfigMap) { c.Data = map[string]string{"a": "b"} })),
		"a plan that goes": maps.Delete(ctx, plan.Name, metav1.DeleteOptions{}),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := create(client.CoreV1().ConfigMaps(metav1.NamespaceDefault), plan.Labels); !apierrors.IsForbidden(err) {
		t.Errorf("a plan in another namespace: %v", err)
	}
	// Others are not concerned.
	if err := admin.Delete(ctx, other.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}
