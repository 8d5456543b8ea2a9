package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/oci"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/build/image/internal/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

type options struct {
	module   string
	tag      string
	output   string
	push     string
	platform string
	binaries []string
	title    string
}

func parse(args []string, messages io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.StringVar(&o.module, "module", ".", "`folder` of the Go module whose programs are compiled")
	flags.StringVar(&o.tag, "tag", "localhost/eks-hybrid-dra:dev", "`name` of the image in the saved file")
	flags.StringVar(&o.output, "output", "", "tar `file` to save the image to, for \"ctr images import\" or \"docker load\"")
	flags.StringVar(&o.push, "push", "", "image `reference` to push to, with the credentials of \"docker login\"")
	flags.StringVar(&o.platform, "platform", "linux/amd64", "`platform` of the programs and the image; for another than this machine's, CC must name a cross compiler")
	flags.StringVar(&o.title, "title", "eks-hybrid-dra", "`title` of the image, for its labels")
	flags.Func("binary", "`name=file` of a compiled program; may be given several times, and then stands instead of the project's own programs", func(v string) error {
		o.binaries = append(o.binaries, v)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return options{}, fmt.Errorf("reading the command line: %w", err)
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q: programs are given by --binary name=file", flags.Arg(0))
	}
	if o.output == "" && o.push == "" {
		return options{}, fmt.Errorf("nothing to do with the image: give --output, --push, or both")
	}
	return o, nil
}

func run(ctx context.Context, args []string, messages io.Writer) error {
	o, err := parse(args, messages)
	if err != nil {
		return err
	}
	platform, err := v1.ParsePlatform(o.platform)
	if err != nil {
		return fmt.Errorf("reading --platform %q: %w", o.platform, err)
	}
	log := progress{out: messages}

	binaries, err := o.compiled(ctx, *platform, log)
	if err != nil {
		return err
	}
	start := time.Now()
	image, err := assemble(ctx, *platform, o.labels(ctx), binaries)
	if err != nil {
		return err
	}
	if o.output != "" {
		if err := oci.Save(o.output, o.tag, image); err != nil {
			return err
		}
		log.done(start, "saved %s to %s", o.tag, o.output)
	}
	if o.push == "" {
		return nil
	}
	start = time.Now()
	pushed, err := oci.Push(ctx, o.push, image)
	if err != nil {
		return err
	}
	log.done(start, "pushed %s", pushed)
	return nil
}

// compiled returns the programs that the options name, compiled if they are
// this project's own.
func (o options) compiled(ctx context.Context, platform v1.Platform, log progress) ([]binary, error) {
	var binaries []binary
	for _, pair := range o.binaries {
		name, file, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("reading --binary %q: it must be name=file", pair)
		}
		binaries = append(binaries, binary{name: name, file: file})
	}
	if len(binaries) > 0 {
		return binaries, nil
	}
	list, err := programs(ctx, o.module)
	if err != nil {
		return nil, err
	}
	compiler := program.Compiler{
		Module:    o.module,
		OutputDir: filepath.Join(o.module, "bin", "image", platform.OS+"-"+platform.Architecture),
		OS:        platform.OS,
		Arch:      platform.Architecture,
	}
	for _, p := range list {
		start := time.Now()
		file, err := compiler.Compile(ctx, p)
		if err != nil {
			return nil, err
		}
		log.done(start, "compiled %s", p.Name)
		binaries = append(binaries, binary{name: p.Name, file: file})
	}
	return binaries, nil
}

// labels are the annotations that the OCI image specification defines.
func (o options) labels(ctx context.Context) map[string]string {
	version := program.VersionOf(ctx, o.module)
	return map[string]string{
		"org.opencontainers.image.title":    o.title,
		"org.opencontainers.image.source":   "https://github.com/eks-hybrid-dra/eks-hybrid-dra",
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version":  version.Git,
		"org.opencontainers.image.revision": version.Commit,
	}
}

// compilerCommand returns the C compiler that the go command uses.
func compilerCommand(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "CC").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the C compiler: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// progress tells what was done and how long it took.
type progress struct{ out io.Writer }

func (p progress) done(start time.Time, format string, args ...any) {
	// A message that cannot be written is no reason to fail.
	_, _ = fmt.Fprintf(p.out, "  %-60s %6.1fs\n", fmt.Sprintf(format, args...), time.Since(start).Seconds())
}
