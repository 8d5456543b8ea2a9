package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	name          = "demo"
	kustomization = "deployments/manifests/simulated-dgx-h200"
	example       = "examples/gpu-test-job.yaml"
	job           = "gpu-test"
	container     = "cuda"
	gpus          = 8
	vfExample     = "examples/vf-static-address.yaml"
	vfServer      = "vf-static-address-a"
	vfClient      = "vf-static-address-b"
	vfContainer   = "main"
	// patience is how long the demo waits for one thing.
	patience = 3 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	start := time.Now()
	err := run(ctx, os.Getenv("DEMO_KEEP") != "")
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("\nThe demo took %.0f s.\n", time.Since(start).Seconds())
}

// run brings the cluster up, shows everything, and takes the cluster down
// unless it is to be kept.
func run(ctx context.Context, keep bool) (err error) {
	if err := harness.Check(); err != nil {
		return err
	}
	unlock, err := harness.Lock(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	steps := harness.Steps{Out: os.Stdout}
	kept, err := harness.FindRunning(ctx, name, steps)
	if err != nil {
		return err
	}
	if kept != nil {
		return fmt.Errorf("the cluster %s is up already, left by an earlier demo; it stays as it is, and no demo is run.\n%s", name, kept.HowToUse())
	}
	cluster, err := harness.Start(ctx, name, steps)
	if err != nil {
		return err
	}
	err = show(ctx, cluster)
	switch {
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	case err != nil:
		cluster.Report(ctx, os.Stderr)
	}
	if keep {
		fmt.Print("\nThe cluster stays up.\n", cluster.HowToUse())
		return err
	}
	fmt.Println()
	return errors.Join(err, cluster.Stop(ctx))
}

// show installs the driver, runs the example, and prints what they did.
func show(ctx context.Context, cluster *harness.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := cluster.InstallDriver(ctx, kustomization); err != nil {
		return err
	}
	devices, err := cluster.WaitDevices(ctx, gpus)
	if err != nil {
		return err
	}
	fmt.Printf("\nThe driver published these devices (kubectl get resourceslices):\n%s\n", table(devices))

	claim, output, err := runExample(ctx, cluster)
	if err != nil {
		return err
	}
	fmt.Printf("\nThe job's pod had this claim (kubectl get resourceclaims -n %s):\n%s", name, allocation(claim))
	fmt.Printf("\nThe container ran nvidia-smi and saw (kubectl logs -n %s job/%s):\n%s", name, job, output)
	return showVFs(ctx, cluster)
}

// showVFs runs two pods that reach each other over virtual functions.
func showVFs(ctx context.Context, cluster *harness.Cluster) error {
	published, err := cluster.Slices(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\nThe driver published these SR-IOV virtual functions, too:\n%s\n", portTable(published))
	err = cluster.Steps.Do("Running "+vfExample, func() error {
		if err := cluster.Apply(ctx, name, vfExample); err != nil {
			return err
		}
		_, err := cluster.WaitPod(ctx, name, vfClient, harness.Succeeded())
		return err
	})
	if err != nil {
		return err
	}
	claim, err := attachedClaim(ctx, cluster)
	if err != nil {
		return err
	}
	output, err := cluster.Logs(ctx, name, vfClient, vfContainer)
	if err != nil {
		return err
	}
	fmt.Printf("\nThe first pod's claim says what its VF has become (kubectl get resourceclaims -n %s):\n%s", name, attachment(claim))
	fmt.Printf("\nThe second pod pinged the first one over the VFs (kubectl logs -n %s %s):\n%s", name, vfClient, output)
	return nil
}

// attachedClaim returns the claim of the first pod as soon as its status tells
// of the VF, which is written behind the pod's start.
func attachedClaim(ctx context.Context, cluster *harness.Cluster) (*resourceapi.ResourceClaim, error) {
	pod, err := cluster.Client.CoreV1().Pods(name).Get(ctx, vfServer, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading pod %s: %w", vfServer, err)
	}
	if len(pod.Status.ResourceClaimStatuses) == 0 || pod.Status.ResourceClaimStatuses[0].ResourceClaimName == nil {
		return nil, fmt.Errorf("pod %s has no claim", vfServer)
	}
	var claim *resourceapi.ResourceClaim
	err = wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		var err error
		claim, err = cluster.Client.ResourceV1().ResourceClaims(name).Get(ctx, *pod.Status.ResourceClaimStatuses[0].ResourceClaimName, metav1.GetOptions{})
		return err == nil && attachment(claim) != "", err
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for the status of the claim of pod %s: %w", vfServer, err)
	}
	return claim, nil
}

// runExample runs the job anew, and returns its claim and what it printed.
func runExample(ctx context.Context, cluster *harness.Cluster) (*resourceapi.ResourceClaim, string, error) {
	if err := emptyNamespace(ctx, cluster); err != nil {
		return nil, "", err
	}
	// The claim goes with its pod, so it has to be watched from the beginning.
	type seen struct {
		claim *resourceapi.ResourceClaim
		err   error
	}
	allocated := make(chan seen, 1)
	go func() {
		claim, err := cluster.WaitAllocated(ctx, name)
		allocated <- seen{claim, err}
	}()
	var pod *corev1.Pod
	err := cluster.Steps.Do("Running "+example, func() (err error) {
		if err := cluster.Apply(ctx, name, example); err != nil {
			return err
		}
		pod, err = cluster.WaitJob(ctx, name, job)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	got := <-allocated
	if got.err != nil {
		return nil, "", got.err
	}
	output, err := cluster.Logs(ctx, name, pod.Name, container)
	return got.claim, output, err
}

// emptyNamespace makes the namespace, or removes what an earlier demo left
// there.
func emptyNamespace(ctx context.Context, cluster *harness.Cluster) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := cluster.Client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	if err == nil {
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating namespace %s: %w", name, err)
	}
	for _, file := range []string{example, vfExample} {
		if _, err := cluster.Kubectl(ctx, "delete", "-n", name, "-f", file, "--ignore-not-found", "--cascade=foreground"); err != nil {
			return err
		}
	}
	return cluster.WaitPodsGone(ctx, name)
}
