package pairs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/pods"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
)

const (
	podNamespace = "bench-pairs"
	// template is that of the pods' claims.
	template = "one"
)

// work is pods that each ask for a device of a class.
type work struct{ name, class string }

// scheduler has a real scheduler place pods, with GPUs and with pairs in turn.
func (s *Suite) scheduler(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.cleanUp(ctx)) }()
	// An earlier run that was cut off may have left some.
	if err := published.Remove(ctx, s.Cluster.Client); err != nil {
		return err
	}
	var names []string
	for i := range fewNodes {
		names = append(names, simulatedNode(i))
	}
	if err := published.Add(ctx, s.Cluster.Client, names, s.machine.As, nil); err != nil {
		return err
	}
	process, err := findScheduler("/proc", s.Cluster.Kubeconfig)
	if errors.Is(err, errNoScheduler) {
		s.report.Notes = append(s.report.Notes, "The scheduler's processor time was not measured: "+err.Error()+".")
	} else if err != nil {
		return err
	}
	kinds := []work{{SchedulerGPU, gpuClass}, {SchedulerComposite, pairClass}}
	for round := range s.Size.Rounds {
		for i := range kinds {
			kind := kinds[(i+round)%len(kinds)]
			rate, err := s.place(ctx, kind, process)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			s.report.Keep(kind.name, figures.Ours, figures.Samples{rate})
		}
	}
	return nil
}

// place has pods of a kind placed and returns how many were per second, from the
// creation of the first until the last had its node. It keeps how much processor
// time the scheduler took, if that is a process here.
func (s *Suite) place(ctx context.Context, kind work, process string) (rate float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	runner := pods.Runner{Cluster: s.Cluster, Namespace: podNamespace, Image: "localhost/none:none"}
	// An earlier run that was cut off may have left some.
	if err := s.removePods(ctx, runner); err != nil {
		return 0, err
	}
	if err := runner.SetUp(ctx); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.removePods(ctx, runner)) }()
	if err := runner.NewTemplate(ctx, template, some(kind.class, 1)); err != nil {
		return 0, err
	}
	placed, err := watchPlaced(ctx, s.Cluster.Client, runner.Namespace)
	if err != nil {
		return 0, err
	}
	if err := s.create(ctx, runner, "first"); err != nil {
		return 0, err
	}
	if err := placed.await(ctx, 1); err != nil {
		return 0, err
	}
	used := s.processorTimeOf(process)
	start := time.Now()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelism)
	group.Go(func() error { return placed.await(groupCtx, 1+s.Size.Pods) })
	for n := range s.Size.Pods {
		group.Go(func() error { return s.create(groupCtx, runner, fmt.Sprintf("pod-%d", n)) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(start)
	if err := used(kind); err != nil {
		return 0, err
	}
	return float64(s.Size.Pods) / took.Seconds(), s.checkClaims(ctx, kind)
}

// processorTimeOf returns a function that keeps what the scheduler has taken for
// each pod since.
func (s *Suite) processorTimeOf(process string) func(work) error {
	if process == "" {
		return func(work) error { return nil }
	}
	before, err := processorTime(process)
	return func(kind work) error {
		after, errAfter := processorTime(process)
		s.keep(kind.name+cpuSuffix, (after-before)/time.Duration(s.Size.Pods))
		return errors.Join(err, errAfter)
	}
}

// create creates a pod that runs on simulated nodes only.
func (s *Suite) create(ctx context.Context, runner pods.Runner, name string) error {
	pod := runner.New(name, template)
	pod.Spec.NodeSelector = map[string]string{published.Label: ""}
	pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	if _, err := s.Cluster.Client.CoreV1().Pods(runner.Namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create pod %s: %w", name, err)
	}
	return nil
}

// checkClaims returns an error if a claim has no device of its own.
func (s *Suite) checkClaims(ctx context.Context, kind work) error {
	claims, err := s.Cluster.Client.ResourceV1().ResourceClaims(podNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the claims of the pods: %w", err)
	}
	return distinct(claims.Items, s.Size.Pods+1, kind)
}

// distinct returns an error if there are not so many claims with a device each
// that no other has.
func distinct(claims []resourceapi.ResourceClaim, count int, kind work) error {
	if len(claims) != count {
		return fmt.Errorf("%d pods have a node, and there are %d claims", count, len(claims))
	}
	owners := map[string]string{}
	for _, claim := range claims {
		if claim.Status.Allocation == nil || len(claim.Status.Allocation.Devices.Results) != 1 {
			return fmt.Errorf("claim %s of a pod that has a node was not given one device of class %s: %+v", claim.Name, kind.class, claim.Status.Allocation)
		}
		result := claim.Status.Allocation.Devices.Results[0]
		device := result.Pool + "/" + result.Device
		if other, twice := owners[device]; twice {
			return fmt.Errorf("device %s was given to the claims %s and %s", device, other, claim.Name)
		}
		owners[device] = claim.Name
	}
	return nil
}

// removePods removes pods that no kubelet would take leave of, their claims and
// their namespace, also after ctx is done.
func (s *Suite) removePods(ctx context.Context, runner pods.Runner) error {
	ctx = context.WithoutCancel(ctx)
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	if err := s.Cluster.Client.CoreV1().Pods(runner.Namespace).DeleteCollection(ctx, now, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the pods: %w", err)
	}
	return runner.TearDown(ctx)
}

// cleanUp also works after ctx is done.
func (s *Suite) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return published.Remove(ctx, s.Cluster.Client)
}
