package prepare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/plugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/pods"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Size says how often things are measured.
type Size struct {
	Starts, Alone, AtOnce, Crowds, MemoryCycles, Pods, ForceDeletes int
	// Rest is how long a plugin is left alone before its memory is looked at:
	// longer than the two minutes after which Go collects the garbage of a
	// program that has nothing to do (forcegcperiod in runtime/proc.go).
	Rest time.Duration
	// Stubborn is how long the force-deleted container ignores SIGTERM.
	Stubborn time.Duration
}

// Full is what figures are published with.
func Full() Size {
	return Size{Starts: 5, Alone: 400, AtOnce: 30, Crowds: 5, MemoryCycles: 10_000, Pods: 20, ForceDeletes: 3, Rest: 130 * time.Second, Stubborn: 20 * time.Second}
}

// Quick shows within about a minute that everything works.
func Quick() Size {
	return Size{Starts: 3, Alone: 50, AtOnce: 5, Crowds: 1, MemoryCycles: 500, Pods: 3, ForceDeletes: 1, Rest: 2 * time.Second, Stubborn: 5 * time.Second}
}

const (
	// gpus is how many devices each driver has.
	gpus = 8
	// crowd is how many claims are in flight where many are.
	crowd = 64
	// patience is how long one step may take.
	patience = 2 * time.Minute
	// node is a node that no kubelet runs, namespace that of its claims.
	node, namespace = "bench-node", "bench-claims"
)

// Suite measures.
type Suite struct {
	Cluster *harness.Cluster
	Steps   harness.Steps
	Size    Size
	// Image is the file of our image.
	Image string
	// KubeletRoot and CDIRoot are empty folders for the plugins.
	KubeletRoot, CDIRoot string
	// Work is a folder for programs and logs.
	Work string

	report figures.Report
	// subjects are what is measured, ours first.
	subjects []*subject
	pod      *corev1.Pod
}

// Run measures everything and returns what was found.
func (s *Suite) Run(ctx context.Context) (_ *figures.Report, err error) {
	if err := s.compile(ctx); err != nil {
		return nil, err
	}
	if err := s.plugins(ctx); err != nil {
		return nil, err
	}
	if err := s.pods(ctx); err != nil {
		return nil, err
	}
	s.compute()
	return &s.report, nil
}

// PeerTitle is the name and version of the driver that ours is compared with,
// or empty.
func (s *Suite) PeerTitle() string {
	if len(s.subjects) < 2 {
		return ""
	}
	return s.subjects[1].kind.Title
}

func (s *Suite) compile(ctx context.Context) error {
	ours, err := plugin.Ours(s.Image, filepath.Join(s.Work, "ours"))
	if err != nil {
		return err
	}
	kinds := map[string]plugin.Kind{figures.Ours: ours}
	err = s.Steps.Do("Compiling the driver to compare with", func() (err error) {
		kinds[figures.Peer], err = plugin.Example(ctx, filepath.Join(s.Cluster.Root, "test", "bench", "peer"), s.Work)
		return err
	})
	if err != nil {
		delete(kinds, figures.Peer)
		s.report.Notes = append(s.report.Notes, "The driver to compare with was not measured: "+err.Error())
	}
	for _, whose := range []string{figures.Ours, figures.Peer} {
		kind, ok := kinds[whose]
		if !ok {
			continue
		}
		s.subjects = append(s.subjects, &subject{suite: s, whose: whose, kind: kind, place: plugin.Place{
			KubeletRoot: filepath.Join(s.KubeletRoot, whose), CDIRoot: filepath.Join(s.CDIRoot, whose),
			Node: node, Kubeconfig: s.Cluster.Kubeconfig,
		}})
	}
	return nil
}

// plugins measures the plugins as plain processes, playing kubelet.
func (s *Suite) plugins(ctx context.Context) (err error) {
	if err := s.setUp(ctx); err != nil {
		return errors.Join(err, s.tearDown(ctx))
	}
	defer func() { err = errors.Join(err, s.tearDown(ctx)) }()
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Plugin start until its devices are in the API", s.starts},
		{"Memory before the first claim", func(ctx context.Context) error { return s.lookAtMemory(ctx, rssIdle) }},
		{"Claims one at a time", s.alone},
		{"Eight claims at once", s.atOnce},
		{"64 claims for eight devices", s.crowds},
		{"Memory after these claims", func(ctx context.Context) error { return s.lookAtMemory(ctx, rssWarm) }},
		{fmt.Sprintf("Memory after %d more claims", s.Size.MemoryCycles), s.memory},
	} {
		if err := s.Steps.Do(step.title, func() error { return step.do(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// setUp makes a node, a namespace and a pod for the claims.
func (s *Suite) setUp(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	if err := pods.NewNamespace(ctx, s.Cluster.Client, namespace); err != nil {
		return err
	}
	if _, err := draclient.CreateNode(ctx, s.Cluster.Client, node); err != nil {
		return err
	}
	var err error
	s.pod, err = draclient.CreatePod(ctx, s.Cluster.Client, types.NamespacedName{Namespace: namespace, Name: "bench"}, node)
	return err
}

// tearDown also works after ctx is done.
func (s *Suite) tearDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	var errs []error
	for _, subject := range s.subjects {
		errs = append(errs, subject.stop())
	}
	return errors.Join(append(errs, s.clear(ctx))...)
}

// clear removes what this run, or an earlier one that was cut off, left in the
// cluster and in the plugins' folders.
func (s *Suite) clear(ctx context.Context) error {
	client := s.Cluster.Client
	for _, subject := range s.subjects {
		if err := subject.deleteSlices(ctx); err != nil {
			return err
		}
	}
	// Nobody runs the pod, so nobody would confirm its end.
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	if err := client.CoreV1().Pods(namespace).DeleteCollection(ctx, now, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the pod of the claims: %w", err)
	}
	if err := pods.DeleteNamespace(ctx, client, namespace); err != nil {
		return err
	}
	if err := pods.IgnoreNotFound(client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{})); err != nil {
		return fmt.Errorf("delete node %s: %w", node, err)
	}
	for _, dir := range []string{s.KubeletRoot, s.CDIRoot} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("clear the plugins' folders: %w", err)
		}
	}
	return nil
}

// alternately does something n times with each subject, so that a change in
// the machine's load meets all of them. Who is first changes every time.
func (s *Suite) alternately(n int, do func(*subject) error) error {
	for round := range n {
		for i := range s.subjects {
			subject := s.subjects[(i+round)%len(s.subjects)]
			if err := do(subject); err != nil {
				return subject.explain(err)
			}
		}
	}
	return nil
}

// rest waits, so that what a plugin does after its work is over.
func (s *Suite) rest(ctx context.Context) error {
	timer := time.NewTimer(s.Size.Rest)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
