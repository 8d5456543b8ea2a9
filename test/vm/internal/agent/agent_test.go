package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve runs a server on the loopback link and returns a client of it.
func serve(t *testing.T, s *Server) *Client {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &Client{Dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp4", listener.Addr().String())
	}}
}

func TestRun(t *testing.T) {
	client := serve(t, &Server{})
	for _, test := range []struct {
		name        string
		cmd         Command
		out, errOut string
		code        int
		fails       string
	}{
		{name: "output", cmd: Command{Args: []string{"sh", "-c", "echo out; echo err >&2"}}, out: "out\n", errOut: "err\n"},
		{name: "exit status", cmd: Command{Args: []string{"sh", "-c", "exit 3"}}, code: 3},
		{name: "signal", cmd: Command{Args: []string{"sh", "-c", "kill -9 $$"}}, code: 137},
		{name: "folder and environment", cmd: Command{Args: []string{"sh", "-c", "pwd; echo $A"}, Dir: "/proc", Env: []string{"A=b"}}, out: "/proc\nb\n"},
		{name: "no such program", cmd: Command{Args: []string{"no-such-program"}}, fails: "no-such-program"},
		{name: "nothing", fails: "no program is named"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			err := client.Run(t.Context(), test.cmd, &out, &errOut)
			var exit *ExitError
			switch {
			case test.fails != "":
				if err == nil || !strings.Contains(err.Error(), test.fails) || errors.As(err, &exit) {
					t.Errorf("got %v, want an error about %q", err, test.fails)
				}
			case test.code != 0:
				if !errors.As(err, &exit) || exit.Code != test.code {
					t.Errorf("got %v, want exit status %d", err, test.code)
				}
			case err != nil:
				t.Error(err)
			}
			if out.String() != test.out || errOut.String() != test.errOut {
				t.Errorf("got %q and %q, want %q and %q", out.String(), errOut.String(), test.out, test.errOut)
			}
		})
	}
}

func TestMuchOutputArrivesWhole(t *testing.T) {
	client := serve(t, &Server{})
	const size = 3 << 20
	out, err := client.Output(t.Context(), Command{Args: []string{"head", "-c", "3145728", "/dev/zero"}})
	if err != nil || len(out) != size {
		t.Errorf("got %d bytes, want %d: %v", len(out), size, err)
	}
}

func TestAProgramEndsWithItsConnection(t *testing.T) {
	client := serve(t, &Server{})
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		// The shell tells its process, which is that of its sleep too.
		ended <- client.Run(ctx, Command{Args: []string{"sh", "-c", "echo $$; exec sleep 600"}}, out, io.Discard)
	}()
	line := make([]byte, 32)
	n, err := in.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	process := filepath.Join("/proc", strings.TrimSpace(string(line[:n])))
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	await(t, func() bool { _, err := os.Stat(process); return errors.Is(err, os.ErrNotExist) })
}

func TestServices(t *testing.T) {
	logs := t.TempDir()
	client := serve(t, &Server{Logs: logs})
	log := filepath.Join(logs, "kubelet.log")
	said := func(what string) func() bool {
		return func() bool {
			content, err := os.ReadFile(log)
			return err == nil && strings.Contains(string(content), what)
		}
	}
	run := Command{Args: []string{"sh", "-c", "trap 'echo stopped; exit 0' TERM; echo started; while :; do sleep 0.05; done"}}
	if err := client.Start(t.Context(), "kubelet", run); err != nil {
		t.Fatal(err)
	}
	await(t, said("started"))
	if err := client.Start(t.Context(), "kubelet", run); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("starting it twice: got %v", err)
	}
	if err := client.Stop(t.Context(), "kubelet", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !said("stopped")() {
		t.Error("it was not asked to stop")
	}
	if err := client.Start(t.Context(), "kubelet", run); err != nil {
		t.Errorf("starting it again: %v", err)
	}
	if err := client.Stop(t.Context(), "kubelet", syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := client.Stop(t.Context(), "containerd", syscall.SIGKILL); err == nil {
		t.Error("a service that was never started can be stopped")
	}
}

func TestPowerOffIsAnsweredFirst(t *testing.T) {
	off := make(chan struct{})
	client := serve(t, &Server{PowerOff: func() error { close(off); return nil }})
	if err := client.PowerOff(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-off:
	case <-time.After(10 * time.Second):
		t.Error("the guest stays on")
	}
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not within 10 s")
		}
	}
}
