package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve runs a supervisor of four commands in this process and returns its
// socket. Tests with it must not run in parallel: it reaps every child.
func serve(t *testing.T) (socket, logs string) {
	t.Helper()
	dir := t.TempDir()
	logs = dir
	socket = filepath.Join(dir, "s.sock")
	listener, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	super := New([]Command{
		{Name: "sleeper", Path: "/bin/sleep", Args: []string{"1000"}},
		{Name: "stubborn", Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; echo trapped; while :; do sleep 1; done"}},
		{Name: "hasty", Path: "/bin/sh", Args: []string{"-c", "echo no such flag; exit 3"}},
		{Name: "missing", Path: "/does/not/exist"},
	}, logs, os.Environ())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- super.Serve(ctx, listener) }()
	go func() { super.Reap(ctx); done <- nil }()
	t.Cleanup(func() {
		for _, name := range []string{"sleeper", "stubborn", "hasty"} {
			if err := super.Stop(context.Background(), name, true); err != nil {
				t.Error(err)
			}
		}
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return socket, logs
}

func order(t *testing.T, socket, op, name string) Status {
	t.Helper()
	statuses, err := Send(context.Background(), socket, Request{Op: op, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statuses {
		if s.Name == name {
			return s
		}
	}
	return Status{}
}

// await asks for the status until it is as wanted.
func await(t *testing.T, socket, name string, ok func(Status) bool) Status {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		statuses, err := Send(context.Background(), socket, Request{Op: "status"})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statuses {
			if s.Name == name && ok(s) {
				return s
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not get there: %+v", name, statuses)
		}
	}
}

func TestStartStopRestart(t *testing.T) {
	socket, _ := serve(t)
	started := order(t, socket, "start", "sleeper")
	if started.PID == 0 {
		t.Fatal("started, but does not run")
	}
	if again := order(t, socket, "start", "sleeper"); again.PID != started.PID {
		t.Errorf("starting what runs made process %d of %d", again.PID, started.PID)
	}
	if restarted := order(t, socket, "restart", "sleeper"); restarted.PID == started.PID || restarted.PID == 0 {
		t.Errorf("after a restart the process is %d, before %d", restarted.PID, started.PID)
	}
	if stopped := order(t, socket, "stop", "sleeper"); stopped.PID != 0 || !strings.Contains(stopped.LastExit, "terminated") {
		t.Errorf("after a stop: %+v", stopped)
	}
	if stopped := order(t, socket, "stop", "sleeper"); stopped.PID != 0 {
		t.Errorf("after a second stop: %+v", stopped)
	}
}

func TestFlagsOfACommandThatIsRestarted(t *testing.T) {
	s := New([]Command{{Name: "api", Args: []string{"--a=1", "--gates=A=true", "--gates-of=B"}}}, t.TempDir(), nil)
	for _, want := range [][]string{
		{"--a=1", "--gates-of=B", "--gates=A=false,C=true"},
		{"--a=1", "--gates-of=B", "--gates="},
	} {
		if err := s.setFlags("api", want[2:]); err != nil {
			t.Fatal(err)
		}
		if got := s.commands["api"].command.Args; !slices.Equal(got, want) {
			t.Errorf("arguments %q, want %q", got, want)
		}
	}
	if err := s.setFlags("other", nil); err == nil {
		t.Error("a command that is not there got flags")
	}
}

func TestCrashIsRestarted(t *testing.T) {
	socket, _ := serve(t)
	started := order(t, socket, "start", "sleeper")
	if err := syscall.Kill(started.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	back := await(t, socket, "sleeper", func(s Status) bool { return s.Restarts == 1 && s.PID != 0 })
	if !strings.Contains(back.LastExit, "killed") {
		t.Errorf("the status does not say how it ended: %+v", back)
	}
}

func TestEndingRightAfterEachStartIsCounted(t *testing.T) {
	socket, _ := serve(t)
	order(t, socket, "start", "hasty")
	dying := await(t, socket, "hasty", func(s Status) bool { return s.QuickEnds >= 2 })
	if dying.LastExit != "exit status 3" {
		t.Errorf("the status does not say how it ended: %+v", dying)
	}
	order(t, socket, "stop", "hasty")
	if again := order(t, socket, "start", "hasty"); again.QuickEnds > 1 {
		t.Errorf("a new start does not begin to count anew: %+v", again)
	}
}

func TestKillNeedsNoConsent(t *testing.T) {
	socket, logs := serve(t)
	order(t, socket, "start", "stubborn")
	deadline := time.Now().Add(20 * time.Second)
	for {
		log, err := os.ReadFile(filepath.Join(logs, "stubborn.log"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), "trapped") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log has only %q", log)
		}
	}
	if killed := order(t, socket, "kill", "stubborn"); killed.PID != 0 {
		t.Errorf("after a kill: %+v", killed)
	}
}

func TestOrdersThatFail(t *testing.T) {
	socket, _ := serve(t)
	for _, test := range []struct{ op, name, want string }{
		{"start", "missing", "no such file"},
		{"start", "nobody", `no component "nobody"`},
		{"dance", "sleeper", `order "dance" is not known`},
	} {
		_, err := Send(context.Background(), socket, Request{Op: test.op, Name: test.name})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: got %v, want %q", test.op, test.name, err, test.want)
		}
	}
	if _, err := Send(context.Background(), filepath.Join(t.TempDir(), "none.sock"), Request{Op: "status"}); err == nil {
		t.Error("an order to nobody succeeds")
	}
}
