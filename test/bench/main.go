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

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/machine"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/page"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/plot"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/prepare"
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

// suitePrepare is the name of the one suite there is.
const suitePrepare = "prepare"

func run(ctx context.Context, args []string) error {
	if len(args) != 1 || args[0] != suitePrepare {
		return fmt.Errorf("got the arguments %q; name what to measure: %s", args, suitePrepare)
	}
	quick := os.Getenv("BENCH_QUICK") != ""
	steps := harness.Steps{Out: os.Stderr}
	result, err := measure(ctx, quick, steps)
	if err != nil {
		return err
	}
	if quick {
		fmt.Fprintln(os.Stderr, "BENCH_QUICK is set: few samples, so docs/performance.md stays as it is")
	} else if err := result.publish(); err != nil {
		return err
	}
	return result.text.Report.Print(os.Stdout)
}

// result is what was measured, and where the repository is.
type result struct {
	root string
	text page.Text
}

func measure(ctx context.Context, quick bool, steps harness.Steps) (_ *result, err error) {
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
	suite := prepare.Suite{Cluster: cluster, Steps: steps, Size: prepare.Full(), Image: images.Driver}
	if quick {
		suite.Size = prepare.Quick()
	}
	remove, err := folders(&suite)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	conditions, err := machine.Look(suite.KubeletRoot)
	if err != nil {
		return nil, err
	}
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

// folders makes the folders of the plugins where they are on a node: state on
// disk, CDI specs in what the system keeps for the time until it is restarted.
// The function that it returns removes them.
func folders(suite *prepare.Suite) (func() error, error) {
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
	}{{"/var/lib", &suite.KubeletRoot}, {"/run", &suite.CDIRoot}, {"", &suite.Work}} {
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
func (r *result) publish() error {
	report := r.text.Report
	if err := writeFile(filepath.Join(r.root, "docs", "images", suitePrepare+".svg"), func(out io.Writer) error {
		_, err := io.WriteString(out, picture(r.text).SVG())
		return err
	}); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(r.root, "bin", "bench-"+suitePrepare+".json"), func(out io.Writer) error {
		return json.NewEncoder(out).Encode(report.Samples)
	}); err != nil {
		return err
	}
	r.text.Plot = "images/" + suitePrepare + ".svg"
	r.text.Caption = "How long preparing one claim takes, and eight at once, with our driver and with the one it is compared with"
	return page.Replace(filepath.Join(r.root, "docs", "performance.md"), suitePrepare, r.text.String())
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

// picture shows the figures that differ most between drivers.
func picture(text page.Text) plot.Picture {
	names := map[string]string{figures.Ours: "eks-hybrid-dra", figures.Peer: text.Peer}
	alone := plot.Distribution{Title: "Prepare one claim: share done within a time", Unit: "milliseconds"}
	bars := plot.Bars{Title: "Eight claims at once: until the last is done", Unit: "ms", Groups: []string{"prepare", "unprepare"}}
	for _, whose := range []string{figures.Ours, figures.Peer} {
		samples := text.Report.Samples["prepare_alone"][whose]
		if len(samples) == 0 {
			continue
		}
		alone.Series = append(alone.Series, plot.Series{Name: names[whose], Values: samples})
		bars.Series = append(bars.Series, plot.Series{Name: names[whose], Values: []float64{
			text.Report.Samples["prepare_8_last"][whose].Median(), text.Report.Samples["unprepare_8_last"][whose].Median(),
		}})
	}
	return plot.Picture{Title: "Preparing claims: " + alone.Title + "; " + bars.Title, Panels: []plot.Panel{alone, bars}}
}
