package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"
)

// stubborn runs until it is told to end, and then for the given number of
// seconds more, like a job that writes a last checkpoint.
func stubborn(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("got %d arguments; give the number of seconds to go on for when told to end", len(args))
	}
	seconds, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return fmt.Errorf("number of seconds: %w", err)
	}
	<-ctx.Done()
	if _, err := fmt.Fprintf(stdout, "told to end, going on for %v s\n", seconds); err != nil {
		return err
	}
	<-time.After(time.Duration(seconds * float64(time.Second)))
	return nil
}
