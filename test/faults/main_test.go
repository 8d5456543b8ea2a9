package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	driverName = "eks-hybrid-dra"
	// gpus is how many the simulated machine has.
	gpus = 8
	// atOnce is how many tests run at the same time. They wait more than they
	// compute.
	atOnce = "6"
)

// bed is what all tests share. TestMain sets it before the first of them.
var bed *testBed

// testBed is an API server, a program to test, and nodes that are in use by no
// test.
type testBed struct {
	root       string
	kubeconfig string
	client     kubernetes.Interface
	namespace  string
	// program is the plugin, built with fault points.
	program string
	// clusterBin brought the cluster up. Empty if it was there before.
	clusterBin string
	cluster    string
	scratch    string
	// madeNetworkAPI tells that the cluster knew no NetworkAttachmentDefinitions.
	madeNetworkAPI bool

	mu     sync.Mutex
	serial int
	idle   []*node
	made   []string
}

func TestMain(m *testing.M) {
	if isCNIPlugin() {
		os.Exit(actAsCNIPlugin())
	}
	flag.Parse()
	if testing.Short() {
		fmt.Println("SKIP: fault tests need a cluster, which -short leaves out")
		return
	}
	if os.Geteuid() != 0 {
		fmt.Println("SKIP: fault tests mount file systems and make device nodes: run them as root")
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, m)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) int {
	b := &testBed{}
	code := make(chan int, 1)
	err := b.setUp(ctx)
	if err == nil {
		bed = b
		if err = setDefault("test.parallel", atOnce); err == nil {
			go func() { code <- m.Run() }()
			select {
			case result := <-code:
				code <- result
			case <-ctx.Done():
				err = errors.New("interrupted")
			}
		}
	}
	if err = errors.Join(err, b.tearDown(context.WithoutCancel(ctx))); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		return 1
	}
	return <-code
}

// setDefault sets a flag that was not given.
func setDefault(name, value string) error {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return nil
	}
	return flag.Set(name, value)
}

func (b *testBed) setUp(ctx context.Context) error {
	var err error
	if b.root, err = harness.Repository(); err != nil {
		return err
	}
	// Paths of sockets must be short.
	if b.scratch, err = os.MkdirTemp("", "f"); err != nil {
		return fmt.Errorf("make a folder for nodes: %w", err)
	}
	if b.kubeconfig = os.Getenv("E2E_KUBECONFIG"); b.kubeconfig == "" {
		if err := b.clusterUp(ctx); err != nil {
			return err
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", b.kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS = -1
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	namespace, err := b.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "faults-"}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make a namespace: %w", err)
	}
	b.namespace = namespace.Name
	if err := b.defineNetwork(ctx); err != nil {
		return err
	}
	return b.buildProgram(ctx)
}

func (b *testBed) clusterUp(ctx context.Context) error {
	b.clusterBin = os.Getenv("CLUSTER_BIN")
	if b.clusterBin == "" {
		b.clusterBin = filepath.Join(b.root, "bin", "cluster")
		if _, err := output(ctx, b.root, "go", "build", "-C", filepath.Join("test", "cluster"), "-o", b.clusterBin, "."); err != nil {
			return err
		}
	}
	// As the end-to-end tests: one of its own for who tests beside others.
	if b.cluster = os.Getenv("E2E_CLUSTER"); b.cluster == "" {
		b.cluster = "faults"
	}
	if _, err := output(ctx, b.root, b.clusterBin, "up", "--name", b.cluster); err != nil {
		return err
	}
	path, err := output(ctx, b.root, b.clusterBin, "kubeconfig", "--name", b.cluster)
	b.kubeconfig = strings.TrimSpace(path)
	return err
}

// buildProgram builds the plugin and puts beside it what its image has beside
// it. No container runs here, so two of these need only be there.
func (b *testBed) buildProgram(ctx context.Context) error {
	b.program = filepath.Join(b.scratch, "bin", "kubelet-plugin")
	_, err := output(ctx, b.root, "go", "build", "-tags", "faultpoints", "-o", filepath.Dir(b.program)+"/", "./cmd/kubelet-plugin", "./cmd/attach-hook")
	for _, name := range []string{"nvidia-cdi-hook", "simulated-nvidia-smi"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(b.scratch, "bin", name), []byte("#!/bin/sh\n"), 0o755)) //nolint:gosec // a program
	}
	return err
}

// tearDown removes what the tests made, also in a cluster that stays.
func (b *testBed) tearDown(ctx context.Context) error {
	var errs []error
	if b.clusterBin != "" && os.Getenv("E2E_KEEP") == "" {
		_, err := output(ctx, b.root, b.clusterBin, "down", "--name", b.cluster)
		errs = append(errs, err)
	} else if b.client != nil {
		errs = append(errs, b.removeObjects(ctx))
	}
	if b.scratch != "" {
		errs = append(errs, os.RemoveAll(b.scratch))
	}
	return errors.Join(errs...)
}

func (b *testBed) removeObjects(ctx context.Context) error {
	claims, err := b.client.ResourceV1().ResourceClaims(b.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the tests' claims: %w", err)
	}
	errs := []error{b.removeNetworkAPI(ctx)}
	for _, c := range claims.Items {
		errs = append(errs, draclient.Delete(ctx, b.client, draclient.ClaimOf(&c)))
	}
	for _, name := range b.made {
		if err := b.client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, b.client.CoreV1().Namespaces().Delete(ctx, b.namespace, metav1.DeleteOptions{}))...)
}

// output runs a program and returns what it printed.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	// An interrupted "cluster up" cleans up after itself.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("%s %s: %w", filepath.Base(program), strings.Join(args, " "), err)
	}
	return string(out), nil
}

// exists tells whether there is something at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
