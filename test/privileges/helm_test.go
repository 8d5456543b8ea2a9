package privileges

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// helm runs helm in the release's namespace, and returns what it printed.
func (s *scene) helm(ctx context.Context, args ...string) (string, error) {
	args = append(args, "--kubeconfig", s.Kubeconfig, "--namespace", harness.Namespace)
	return helm(ctx, s.Root, args...)
}

func helm(ctx context.Context, root string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, cmp.Or(os.Getenv("HELM_BIN"), filepath.Join(root, "bin", "helm")), args...)
	command.Dir = root
	var messages strings.Builder
	command.Stderr = &messages
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, messages.String())
	}
	return string(out), nil
}

const (
	chart = "deployments/helm/eks-hybrid-dra"
	// everything has all switched on that the chart can run.
	everything = "values.yaml"
)

// install installs or upgrades the release, and returns when all of it is ready.
func (s *scene) install(ctx context.Context, values string) error {
	_, err := s.helm(ctx, "upgrade", "--install", release, chart, "--create-namespace",
		"--values", filepath.Join("test", "privileges", "testdata", values))
	if err != nil {
		return err
	}
	s.installed = values
	for _, c := range []component{plugin(), controller()} {
		if err := s.waitReady(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// hooks are the objects that helm makes when it uninstalls.
type hooks struct {
	clusterRoleBindings []rbacv1.ClusterRoleBinding
	roleBindings        []rbacv1.RoleBinding
	rules               map[role][]rbacv1.PolicyRule
	// objects are all, in the order in which helm makes them.
	objects []*unstructured.Unstructured
}

// hooks asks helm once.
func (s *scene) hooks(ctx context.Context) (*hooks, error) {
	if s.known != nil {
		return s.known, nil
	}
	text, err := s.helm(ctx, "get", "hooks", release)
	if err != nil {
		return nil, err
	}
	objects, err := parse(text)
	if err != nil {
		return nil, err
	}
	h := &hooks{rules: map[role][]rbacv1.PolicyRule{}, objects: objects}
	for _, o := range objects {
		if err := h.add(o); err != nil {
			return nil, fmt.Errorf("%s %s of a hook: %w", o.GetKind(), o.GetName(), err)
		}
	}
	s.known = h
	return h, nil
}

func (h *hooks) add(o *unstructured.Unstructured) error {
	convert := func(into any) error {
		return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into)
	}
	switch o.GetKind() {
	case "ClusterRoleBinding":
		var b rbacv1.ClusterRoleBinding
		err := convert(&b)
		h.clusterRoleBindings = append(h.clusterRoleBindings, b)
		return err
	case "RoleBinding":
		var b rbacv1.RoleBinding
		err := convert(&b)
		h.roleBindings = append(h.roleBindings, b)
		return err
	case "ClusterRole", "Role":
		var r rbacv1.ClusterRole
		err := convert(&r)
		h.rules[role{o.GetKind(), o.GetNamespace(), o.GetName()}] = r.Rules
		return err
	}
	return nil
}

// parse reads documents of YAML.
func parse(text string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for _, document := range regexp.MustCompile(`(?m)^---$`).Split(text, -1) {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			return nil, fmt.Errorf("%w: %s", err, document)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
	return objects, nil
}
