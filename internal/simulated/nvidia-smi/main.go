package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Exit codes of nvidia-smi, from its manual.
const (
	exitOK              = 0
	exitInvalidArgument = 2
	exitNoDevice        = 6
	exitNoDriver        = 9
	exitNoLibrary       = 12
	exitUnknown         = 255
)

func main() {
	// As the first process of a container the tool would not hear these
	// signals if it did not ask for them.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, "/", os.Getenv("LD_LIBRARY_PATH"), os.Args[1:], os.Stdout, time.Now)
	stop()
	os.Exit(code)
}

// exitError is a reason to end: what to say, in the words of the real tool, and
// the exit code.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

func fail(code int, format string, args ...any) error {
	return &exitError{code: code, text: fmt.Sprintf(format, args...)}
}

// run is the whole tool, in the container whose files are below root. It
// returns the exit code.
func run(ctx context.Context, root, libraryPath string, args []string, out io.Writer, now func() time.Time) int {
	err := loop(ctx, root, libraryPath, args, out, now)
	if err == nil {
		return exitOK
	}
	say(out, err.Error())
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return exitUnknown
}

func loop(ctx context.Context, root, libraryPath string, args []string, out io.Writer, now func() time.Time) error {
	o, err := parseArgs(args)
	if err != nil {
		return err
	}
	if o.help {
		say(out, usage)
		return nil
	}
	for first := true; ; first = false {
		if err := report(root, libraryPath, o, first, out, now()); err != nil || o.loop == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.loop):
		}
	}
}

// report prints what was asked for once.
func report(root, libraryPath string, o options, first bool, out io.Writer, now time.Time) error {
	machine, err := look(root, libraryPath)
	if err != nil {
		return err
	}
	if machine.GPUs, err = pick(machine.GPUs, o.id); err != nil {
		return err
	}
	switch {
	case o.list:
		say(out, list(machine))
	case o.query != nil:
		say(out, csv(machine, o, o.header && first))
	default:
		say(out, table(machine, now))
	}
	return nil
}

// say prints a text as it is. Nothing can be done, and nobody told, when the
// output is gone.
func say(out io.Writer, text string) {
	_, _ = fmt.Fprintln(out, text)
}
