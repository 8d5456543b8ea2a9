package privileges

import (
	"context"
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// labelled returns nil when the node says what GPUs it has.
func (s *scene) labelled(ctx context.Context) error {
	nodes, err := s.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "gpu,gpu-count=8"})
	if err != nil || len(nodes.Items) == 0 {
		return errors.Join(errors.New("no node has the labels"), err)
	}
	return nil
}

// networkPlugin has a DaemonSet that the controller keeps where it belongs.
func (s *scene) networkPlugin(ctx context.Context) error {
	sets := s.Client.AppsV1().DaemonSets(others)
	if err := sets.Delete(ctx, "network", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err := s.applyOwn(ctx, "network-plugin.yaml"); err != nil {
		return err
	}
	return eventually(ctx, "the DaemonSet is on hybrid nodes", func(ctx context.Context) error {
		set, err := sets.Get(ctx, "network", metav1.GetOptions{})
		if err == nil && set.Spec.Template.Spec.Affinity == nil {
			err = errors.New("it has no affinity")
		}
		return err
	})
}

// pullSecret is copied, changed, and no longer copied.
func (s *scene) pullSecret(ctx context.Context) error {
	secrets := s.Client.CoreV1().Secrets
	content := func(user string) map[string][]byte {
		return map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{"registry.example.com":{"auth":%q}}}`, user)}
	}
	wanted := func(ctx context.Context, wanted bool) error {
		label := []byte(`{"metadata":{"labels":{"pulls":null}}}`)
		if wanted {
			label = []byte(`{"metadata":{"labels":{"pulls":"true"}}}`)
		}
		_, err := s.Client.CoreV1().Namespaces().Patch(ctx, others, types.MergePatchType, label, metav1.PatchOptions{})
		return err
	}
	copied := func(ctx context.Context, user string) error {
		return eventually(ctx, "the copy is "+user, func(ctx context.Context) error {
			secret, err := secrets(others).Get(ctx, "pull", metav1.GetOptions{})
			if apierrors.IsNotFound(err) && user == "" {
				return nil
			}
			if err == nil && (user == "" || string(secret.Data[corev1.DockerConfigJsonKey]) != string(content(user)[corev1.DockerConfigJsonKey])) {
				err = fmt.Errorf("it is %q", secret.Data)
			}
			return err
		})
	}
	if err := errors.Join(wanted(ctx, false), copied(ctx, "")); err != nil {
		return err
	}
	if err := secrets(harness.Namespace).Delete(ctx, "pull", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	original, err := secrets(harness.Namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pull"}, Type: corev1.SecretTypeDockerConfigJson, Data: content("one"),
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := errors.Join(wanted(ctx, true), copied(ctx, "one")); err != nil {
		return err
	}
	original.Data = content("two")
	if _, err := secrets(harness.Namespace).Update(ctx, original, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if err := copied(ctx, "two"); err != nil {
		return err
	}
	return errors.Join(wanted(ctx, false), copied(ctx, ""))
}

// uninstall does what helm does, with the hooks' own roles. Nothing is installed
// after it.
func (s *scene) uninstall(ctx context.Context) error {
	if err := s.install(ctx, everything); err != nil {
		return err
	}
	if err := s.uninstallable(ctx); err != nil {
		return err
	}
	hooks, err := s.hooks(ctx)
	if err != nil {
		return err
	}
	job := ""
	for _, object := range hooks.objects {
		object = object.DeepCopy()
		if rules, ok := hooks.rules[role{object.GetKind(), object.GetNamespace(), object.GetName()}]; ok {
			r, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&rbacv1.ClusterRole{Rules: lacking(rules, s.missing)})
			if err != nil {
				return err
			}
			object.Object["rules"] = r["rules"]
		}
		if object.GetKind() == "Job" {
			job = object.GetName()
		}
		if err := s.applyObject(ctx, object); err != nil {
			return err
		}
	}
	_, err = s.WaitJob(ctx, harness.Namespace, job)
	background := metav1.DeletePropagationBackground
	err = errors.Join(err, s.Client.BatchV1().Jobs(harness.Namespace).Delete(context.WithoutCancel(ctx), job, metav1.DeleteOptions{PropagationPolicy: &background}))
	if err != nil {
		return err
	}
	_, err = s.helm(ctx, "uninstall", release, "--no-hooks")
	return err
}

// uninstallable makes what only the uninstallation removes.
func (s *scene) uninstallable(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	plans := s.Client.CoreV1().ConfigMaps(harness.Namespace)
	plan := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "left", Labels: map[string]string{"eks-hybrid-dra/gang-plan": "true"}}}
	if _, err := plans.Create(ctx, plan, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if _, err := s.Client.CoreV1().Namespaces().Patch(ctx, others, types.MergePatchType, []byte(`{"metadata":{"labels":{"pulls":"true"}}}`), metav1.PatchOptions{}); err != nil {
		return err
	}
	return eventually(ctx, "a pull secret is copied", func(ctx context.Context) error {
		_, err := s.Client.CoreV1().Secrets(others).Get(ctx, "pull", metav1.GetOptions{})
		return err
	})
}

// settle brings everything back after a step that was broken off.
func (s *scene) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return errors.Join(s.removeRule(ctx), s.reset(ctx, everything))
}

// reset installs the release anew, without what pods of it have done.
func (s *scene) reset(ctx context.Context, values string) error {
	if _, err := s.helm(ctx, "uninstall", release, "--no-hooks", "--ignore-not-found"); err != nil {
		return err
	}
	if _, err := s.Kubectl(ctx, "delete", "jobs,pods", "--all", "-n", harness.Namespace, "--force", "--grace-period=0"); err != nil {
		return err
	}
	return s.install(ctx, values)
}

// applyObject applies one object as it is.
func (s *scene) applyObject(ctx context.Context, o *unstructured.Unstructured) (err error) {
	text, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", "hook-*.json")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()
	_, err = file.Write(text)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	_, err = s.Kubectl(ctx, "apply", "-f", file.Name())
	return err
}
