package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"
)

// sleep waits for the given number of seconds, or for ever when that is
// "infinity". A signal to stop ends it early, without an error.
func sleep(ctx context.Context, args []string, _ io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("got %d arguments; give the number of seconds, or infinity", len(args))
	}
	if args[0] == "infinity" {
		<-ctx.Done()
		return nil
	}
	seconds, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return fmt.Errorf("number of seconds: %w", err)
	}
	timer := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return nil
}
