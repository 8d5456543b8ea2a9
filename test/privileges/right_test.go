package privileges

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// right is one verb that a role gives an account on one resource.
type right struct {
	// account is a service account of the release, without the release's name.
	account string
	// namespace is where the right counts; empty: everywhere.
	namespace string
	// group, resource and name are of what may be done something with; resource
	// has the subresource behind a slash. An empty name means every object.
	group, resource, name string
	verb                  string
	role                  role
}

// role is where a right is written.
type role struct{ kind, namespace, name string }

// String is how docs/permissions.md calls the right.
func (r right) String() string {
	resource, sub, _ := strings.Cut(r.resource, "/")
	if r.group != "" {
		resource += "." + r.group
	}
	if sub != "" {
		resource += "/" + sub
	}
	if r.name != "" {
		resource += " " + r.name
	}
	return fmt.Sprintf("%s: %s %s", r.account, r.verb, resource)
}

// allows tells whether the right is what let a request pass.
func (r right) allows(q request) bool {
	return r.account == q.account && r.group == q.group && r.resource == q.resource && r.verb == q.verb &&
		(r.namespace == "" || r.namespace == q.namespace) && (r.name == "" || r.name == q.name)
}

// covers tells whether the right gives all that the other one gives.
func (r right) covers(o right) bool {
	return r.account == o.account && r.group == o.group && r.resource == o.resource && r.verb == o.verb &&
		(r.namespace == "" || r.namespace == o.namespace) && (r.name == "" || r.name == o.name)
}

// granted returns all rights of the release's accounts: those that the cluster
// has, and those that its hooks bring.
func granted(ctx context.Context, s *scene) ([]right, error) {
	everywhere, err := s.Client.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	somewhere, err := s.Client.RbacV1().RoleBindings(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	hooks, err := s.hooks(ctx)
	if err != nil {
		return nil, err
	}
	var all []right
	add := func(where role, namespace string, subjects []rbacv1.Subject) error {
		accounts := accountsOf(subjects)
		if len(accounts) == 0 {
			return nil
		}
		rules, err := s.rulesOf(ctx, where)
		if err != nil {
			return err
		}
		for _, account := range accounts {
			for _, single := range singles(rules) {
				all = append(all, rightOf(account, namespace, where, single))
			}
		}
		return nil
	}
	// A hook that was broken off has left them.
	left := func(name string) bool {
		return slices.ContainsFunc(hooks.objects, func(o *unstructured.Unstructured) bool { return o.GetName() == name })
	}
	everywhere.Items = slices.DeleteFunc(everywhere.Items, func(b rbacv1.ClusterRoleBinding) bool { return left(b.Name) })
	somewhere.Items = slices.DeleteFunc(somewhere.Items, func(b rbacv1.RoleBinding) bool { return left(b.Name) })
	for _, b := range append(everywhere.Items, hooks.clusterRoleBindings...) {
		if err := add(role{kind: b.RoleRef.Kind, name: b.RoleRef.Name}, "", b.Subjects); err != nil {
			return nil, err
		}
	}
	for _, b := range append(somewhere.Items, hooks.roleBindings...) {
		where := role{kind: b.RoleRef.Kind, name: b.RoleRef.Name}
		if where.kind == "Role" {
			where.namespace = b.Namespace
		}
		if err := add(where, b.Namespace, b.Subjects); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// accountsOf are the release's service accounts among the subjects.
func accountsOf(subjects []rbacv1.Subject) []string {
	var accounts []string
	for _, s := range subjects {
		if s.Kind == rbacv1.ServiceAccountKind && s.Namespace == harness.Namespace {
			accounts = append(accounts, strings.TrimPrefix(s.Name, release+"-"))
		}
	}
	return accounts
}

// rulesOf returns the rules of a role of the cluster or of a hook.
func (s *scene) rulesOf(ctx context.Context, where role) ([]rbacv1.PolicyRule, error) {
	hooks, err := s.hooks(ctx)
	if err != nil {
		return nil, err
	}
	if rules, ok := hooks.rules[where]; ok {
		return rules, nil
	}
	if where.kind == "Role" {
		found, err := s.Client.RbacV1().Roles(where.namespace).Get(ctx, where.name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return found.Rules, nil
	}
	found, err := s.Client.RbacV1().ClusterRoles().Get(ctx, where.name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return found.Rules, nil
}

// setRules replaces the rules of a role of the cluster.
func (s *scene) setRules(ctx context.Context, where role, rules []rbacv1.PolicyRule) error {
	if where.kind == "Role" {
		found, err := s.Client.RbacV1().Roles(where.namespace).Get(ctx, where.name, metav1.GetOptions{})
		if err == nil {
			found.Rules = rules
			_, err = s.Client.RbacV1().Roles(where.namespace).Update(ctx, found, metav1.UpdateOptions{})
		}
		return err
	}
	found, err := s.Client.RbacV1().ClusterRoles().Get(ctx, where.name, metav1.GetOptions{})
	if err == nil {
		found.Rules = rules
		_, err = s.Client.RbacV1().ClusterRoles().Update(ctx, found, metav1.UpdateOptions{})
	}
	return err
}

// without takes one right away, and returns what gives it back.
func (s *scene) without(ctx context.Context, r right) (restore func(context.Context) error, err error) {
	hooks, err := s.hooks(ctx)
	if err != nil {
		return nil, err
	}
	if _, hook := hooks.rules[r.role]; hook {
		s.missing = r
		return func(context.Context) error { s.missing = right{}; return nil }, nil
	}
	before, err := s.rulesOf(ctx, r.role)
	if err != nil {
		return nil, err
	}
	restore = func(ctx context.Context) error { return s.setRules(ctx, r.role, before) }
	return restore, s.setRules(ctx, r.role, lacking(before, r))
}

// lacking returns the rules but for one right.
func lacking(rules []rbacv1.PolicyRule, r right) []rbacv1.PolicyRule {
	return slices.DeleteFunc(singles(rules), func(single rbacv1.PolicyRule) bool {
		return rightOf(r.account, r.namespace, r.role, single) == r
	})
}

// singles splits rules into such of one group, resource, name and verb.
func singles(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, rule := range rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range names {
					for _, verb := range rule.Verbs {
						out = append(out, singleRule(group, resource, name, verb))
					}
				}
			}
		}
	}
	return out
}

func singleRule(group, resource, name, verb string) rbacv1.PolicyRule {
	single := rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}}
	if name != "" {
		single.ResourceNames = []string{name}
	}
	return single
}

func rightOf(account, namespace string, where role, single rbacv1.PolicyRule) right {
	r := right{
		account: account, namespace: namespace, role: where,
		group: single.APIGroups[0], resource: single.Resources[0], verb: single.Verbs[0],
	}
	if len(single.ResourceNames) > 0 {
		r.name = single.ResourceNames[0]
	}
	return r
}

// twice returns rights that another one gives, too.
func twice(rights []right) []string {
	var out []string
	for i, r := range rights {
		if slices.ContainsFunc(rights[:i], func(o right) bool { return r.covers(o) || o.covers(r) }) {
			out = append(out, fmt.Sprintf("%s, by %s %s", r, r.role.kind, r.role.name))
		}
	}
	return out
}
