package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, "/proc")
	stop()
	if err != nil {
		// The runtime puts this into the pod's event.
		fmt.Fprintln(os.Stderr, "attach-hook:", oneLine(err))
		os.Exit(1)
	}
}

type options struct {
	dataDir string
	claim   string
	wait    time.Duration
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("attach-hook", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error says it
	flags.StringVar(&o.dataDir, "data-dir", "", "the driver's folder below kubelet's plugins folder")
	flags.StringVar(&o.claim, "claim", "", "UID of the claim whose devices are to be attached")
	flags.DurationVar(&o.wait, "wait", time.Minute, "how long to wait for the kubelet plugin")
	if err := flags.Parse(args); err != nil {
		return options{}, fmt.Errorf("reading the command line: %w", err)
	}
	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case !filepath.IsAbs(o.dataDir):
		return options{}, fmt.Errorf("--data-dir %q: want an absolute path", o.dataDir)
	case o.claim == "" || o.claim != filepath.Base(o.claim):
		return options{}, fmt.Errorf("--claim %q: want the UID of a claim", o.claim)
	case o.wait <= 0:
		return options{}, fmt.Errorf("--wait %s: want more than 0", o.wait)
	}
	return o, nil
}

// run attaches the claim's devices to the container whose OCI state comes in.
func run(ctx context.Context, args []string, state io.Reader, procfs string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	c, err := readContainer(state, procfs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.netns.Close()) }()
	return attach(ctx, o, c)
}

// oneLine makes of an error what an event can show.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
