package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// Client gives orders to one guest.
type Client struct {
	// Dial connects to the agent.
	Dial func(ctx context.Context) (net.Conn, error)
}

// ExitError says that a program ended with another status than 0.
type ExitError struct {
	Command Command
	// Code is the exit status, 128 and the signal's number for a signal.
	Code int
	// Stderr is what the program said last, where it was not shown.
	Stderr string
}

// Error implements error.
func (e *ExitError) Error() string {
	text := fmt.Sprintf("%s: exit status %d", strings.Join(e.Command.Args, " "), e.Code)
	if said := strings.TrimSpace(e.Stderr); said != "" {
		text += ": " + said
	}
	return text
}

// Run runs a program to its end and copies its output. The error is an
// [*ExitError] if the program itself failed.
func (c *Client) Run(ctx context.Context, cmd Command, out, errOut io.Writer) error {
	return c.order(ctx, request{Op: opRun, Command: cmd}, out, errOut)
}

// Output runs a program to its end and returns what it printed to its standard
// output. What it printed to its standard error is part of the error.
func (c *Client) Output(ctx context.Context, cmd Command) (string, error) {
	var out, errOut bytes.Buffer
	err := c.Run(ctx, cmd, &out, &errOut)
	var exit *ExitError
	if errors.As(err, &exit) {
		exit.Stderr = errOut.String()
	}
	return out.String(), err
}

// Start starts a service: a program that goes on when the connection is closed.
// Its output goes to /var/log/NAME.log in the guest.
func (c *Client) Start(ctx context.Context, name string, cmd Command) error {
	return c.order(ctx, request{Op: opStart, Name: name, Command: cmd}, io.Discard, io.Discard)
}

// Stop sends a service a signal and waits for its end.
func (c *Client) Stop(ctx context.Context, name string, signal syscall.Signal) error {
	return c.order(ctx, request{Op: opStop, Name: name, Signal: int(signal)}, io.Discard, io.Discard)
}

// PowerOff makes the guest turn itself off.
func (c *Client) PowerOff(ctx context.Context) error {
	return c.order(ctx, request{Op: opPowerOff}, io.Discard, io.Discard)
}

// Crash makes the guest reboot at once, as a cut of its power would: nothing is
// ended, and nothing more is written.
func (c *Client) Crash(ctx context.Context) error {
	return c.order(ctx, request{Op: opCrash}, io.Discard, io.Discard)
}

func (c *Client) order(ctx context.Context, r request, out, errOut io.Writer) (err error) {
	conn, err := c.Dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to the guest: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			err = errors.Join(err, conn.Close())
		}
	}()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return errors.Join(fmt.Errorf("send an order to the guest: %w", err), ctx.Err())
	}
	answer, err := readFrames(conn, out, errOut)
	switch {
	case err != nil:
		return errors.Join(fmt.Errorf("%s in the guest: %w", strings.Join(r.Args, " "), err), ctx.Err())
	case answer.Error != "":
		return fmt.Errorf("%s in the guest: %s", strings.Join(append([]string{r.Op}, r.Args...), " "), answer.Error)
	case answer.Code != 0:
		return &ExitError{Command: r.Command, Code: answer.Code}
	}
	return nil
}
