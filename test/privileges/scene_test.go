package privileges

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	// release is the name of the chart's release.
	release = "eks-hybrid-dra"
	// users is the namespace of those who use the driver, and others one whose
	// NetworkAttachmentDefinitions they may use.
	users, others = "users", "others"
	// gpusPerNode is what a DGX has.
	gpusPerNode = 8
	patience    = 2 * time.Minute
)

// scene is a cluster with the whole chart, on which steps are taken.
type scene struct {
	*harness.Cluster
	log *auditLog
	// installed are the values of the release.
	installed string
	// rights are those of the release with everything.
	rights []right
	// known are the release's hooks, once helm was asked.
	known *hooks
	// missing is a right of a hook that it is not given.
	missing right
}

// eventually returns when check is nil.
func eventually(ctx context.Context, what string, check func(ctx context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting until %s: %w; last: %w", what, err, last)
	}
	return nil
}

// apply applies an example to the users' namespace.
func (s *scene) apply(ctx context.Context, example string) error {
	return s.Apply(ctx, users, filepath.Join("examples", example))
}

// applyOwn applies a file of this package.
func (s *scene) applyOwn(ctx context.Context, file string) error {
	_, err := s.Kubectl(ctx, "apply", "-f", filepath.Join("test", "privileges", "testdata", file))
	return err
}

// clear deletes all pods and claims of the users, and returns when they are gone.
func (s *scene) clear(ctx context.Context) error {
	for _, kinds := range []string{"jobs", "pods", "resourceclaims,resourceclaimtemplates"} {
		if _, err := s.Kubectl(ctx, "delete", kinds, "--all", "-n", users, "--wait", "--timeout=100s"); err != nil {
			return err
		}
	}
	return nil
}

// component is a program of the release, by its label and its workload.
type component struct{ name, kind string }

func (s *scene) pods(ctx context.Context, name string) ([]corev1.Pod, error) {
	list, err := s.Client.CoreV1().Pods(harness.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + name})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// renew deletes the pods of a component at once, and returns when as many others
// are ready.
func (s *scene) renew(ctx context.Context, c component) error {
	old, err := s.pods(ctx, c.name)
	if err != nil {
		return err
	}
	pods := s.Client.CoreV1().Pods(harness.Namespace)
	for _, pod := range old {
		err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting pod %s: %w", pod.Name, err)
		}
	}
	return eventually(ctx, "other pods of "+c.name+" are ready", func(ctx context.Context) error {
		now, err := s.pods(ctx, c.name)
		if err != nil {
			return err
		}
		ready := 0
		for _, pod := range now {
			if slices.ContainsFunc(old, func(o corev1.Pod) bool { return o.UID == pod.UID }) {
				return fmt.Errorf("pod %s is still there", pod.Name)
			}
			if slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				ready++
			}
		}
		if ready < max(1, len(old)) {
			return fmt.Errorf("%d of %d pods are ready", ready, len(old))
		}
		return nil
	})
}

// waitReady returns when all pods of a component are the newest ones and ready.
func (s *scene) waitReady(ctx context.Context, c component) error {
	_, err := s.Kubectl(ctx, "rollout", "status", "-n", harness.Namespace, c.kind+"/"+release+"-"+c.name, "--timeout=100s")
	return err
}

// namespace makes a namespace that may be there already.
func (s *scene) namespace(ctx context.Context, name string, annotations map[string]string) error {
	_, err := s.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return s.WaitNamespace(ctx, name)
}
