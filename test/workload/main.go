package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// program is one of the commands that this binary plays.
type program func(ctx context.Context, args []string, stdout io.Writer) error

func main() {
	// As PID 1 of a container a process has no default handlers: without this
	// the container would only end by SIGKILL.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	name := filepath.Base(os.Args[0])
	programs := map[string]program{
		"cat":      cat,
		"ip":       ip,
		"ls":       ls,
		"ping":     ping,
		"python":   python,
		"sleep":    sleep,
		"stubborn": stubborn,
	}
	run, ok := programs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "%s: this stand-in image knows only cat, ip, ls, ping, python, sleep and stubborn\n", name)
		os.Exit(127)
	}
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// cat prints the named files one after the other.
func cat(_ context.Context, args []string, stdout io.Writer) error {
	for _, name := range args {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := stdout.Write(content); err != nil {
			return fmt.Errorf("printing %s: %w", name, err)
		}
	}
	return nil
}
