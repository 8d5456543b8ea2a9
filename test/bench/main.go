package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/machine"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/page"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("got the arguments %q; name what to measure: %s", args, names())
	}
	kind, ok := kinds()[args[0]]
	if !ok {
		return fmt.Errorf("nothing is called %q; name what to measure: %s", args[0], names())
	}
	quick := os.Getenv("BENCH_QUICK") != ""
	steps := harness.Steps{Out: os.Stderr}
	result, err := measure(ctx, kind, quick, steps)
	if err != nil {
		return err
	}
	if quick {
		fmt.Fprintln(os.Stderr, "BENCH_QUICK is set: few samples, so docs/performance.md stays as it is")
	} else if err := result.publish(args[0], kind); err != nil {
		return err
	}
	return result.text.Report.Print(os.Stdout)
}

// result is what was measured, and where the repository is.
type result struct {
	root string
	text page.Text
}

func measure(ctx context.Context, kind kind, quick bool, steps harness.Steps) (_ *result, err error) {
	if err := harness.Check(); err != nil {
		return nil, err
	}
	images, err := harness.FindImages(ctx, steps)
	if err != nil {
		return nil, err
	}
	cluster, err := harness.Start(ctx, "bench", steps)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Stop(ctx)) }()
	b := bed{cluster: cluster, steps: steps, image: images.Driver, quick: quick}
	remove, err := b.makeFolders()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	conditions, err := machine.Look(b.kubeletRoot)
	if err != nil {
		return nil, err
	}
	suite := kind.suite(b)
	report, err := suite.Run(ctx)
	if err != nil {
		if ctx.Err() == nil {
			cluster.Report(ctx, os.Stderr)
		}
		return nil, err
	}
	if conditions.LoadAfter, err = machine.Load(); err != nil {
		return nil, err
	}
	version, err := cluster.Client.Discovery().ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("ask for the version of Kubernetes: %w", err)
	}
	return &result{root: cluster.Root, text: page.Text{
		Conditions: conditions, Kubernetes: version.GitVersion, Peer: suite.PeerTitle(), Report: report,
	}}, nil
}

// bed is what every suite needs.
type bed struct {
	cluster                    *harness.Cluster
	steps                      harness.Steps
	image                      string
	quick                      bool
	kubeletRoot, cdiRoot, work string
}

// makeFolders makes the folders of the plugins where they are on a node: state
// on disk, CDI specs in what the system keeps for the time until it is
// restarted. The function that it returns removes them.
func (b *bed) makeFolders() (func() error, error) {
	var made []string
	remove := func() error {
		var errs []error
		for _, dir := range made {
			errs = append(errs, os.RemoveAll(dir))
		}
		return errors.Join(errs...)
	}
	for _, folder := range []struct {
		parent string
		path   *string
	}{{"/var/lib", &b.kubeletRoot}, {"/run", &b.cdiRoot}, {"", &b.work}} {
		dir, err := os.MkdirTemp(folder.parent, "dra-bench-")
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make a folder for the plugins: %w", err), remove())
		}
		made = append(made, dir)
		*folder.path = dir
	}
	return remove, nil
}

// publish writes the document, its plot, and the raw samples.
func (r *result) publish(name string, kind kind) error {
	report := r.text.Report
	if err := writeFile(filepath.Join(r.root, "docs", "images", name+".svg"), func(out io.Writer) error {
		_, err := io.WriteString(out, kind.picture(r.text).SVG())
		return err
	}); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(r.root, "bin", "bench-"+name+".json"), func(out io.Writer) error {
		return json.NewEncoder(out).Encode(report.Samples)
	}); err != nil {
		return err
	}
	r.text.Plot, r.text.Caption = "images/"+name+".svg", kind.caption
	return page.Replace(filepath.Join(r.root, "docs", "performance.md"), name, r.text.String())
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := write(file); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
