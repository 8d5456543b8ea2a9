package harness

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestGPUsAreReadFromWhatNvidiaSMIPrints(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
	}{
		"none":          {text: "No devices found.\n"},
		"two":           {text: "GPU 0: NVIDIA H200 (UUID: GPU-a)\nGPU 1: NVIDIA H200 (UUID: GPU-b)\n", want: []string{"GPU-a", "GPU-b"}},
		"MIG instances": {text: "GPU 0: NVIDIA H200 (UUID: GPU-a)\n  MIG 1g.18gb Device 0: (UUID: MIG-b)\n", want: []string{"GPU-a"}},
		"among others":  {text: "hello\nGPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)\nbye", want: []string{"GPU-a"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, GPUs(test.text)); diff != "" {
				t.Errorf("UUIDs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheRepositoryIsFoundFromAnyFolderInIt(t *testing.T) {
	root, err := Repository()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "examples")); err != nil {
		t.Error(err)
	}
	t.Chdir(t.TempDir())
	if _, err := Repository(); err == nil || !strings.Contains(err.Error(), "run this from the repository") {
		t.Errorf("outside of a clone: error %v does not say what to do", err)
	}
}

func TestAFailedCommandTellsWhatItSaid(t *testing.T) {
	var shown bytes.Buffer
	out, err := command{Path: "sh", Args: []string{"-c", "echo half; echo no such thing >&2; exit 3"}, Show: &shown}.run(t.Context())
	if out != "half\n" {
		t.Errorf("standard output %q, want half", out)
	}
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v does not have the exit status and the message", err)
	}
	if !strings.Contains(shown.String(), "half") || !strings.Contains(shown.String(), "no such thing") {
		t.Errorf("shown was %q, want all that the command printed", shown.String())
	}
}

func TestACommandAndItsChildrenEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	started := startedWriter{started: cancel}
	// The child keeps the output open: run returns early only if it ends too.
	_, err := command{Path: "sh", Args: []string{"-c", "sleep 60 & echo started; wait"}, Show: started}.run(ctx)
	if err == nil || !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("error %v, context %v: the command was not ended by the test", err, ctx.Err())
	}
}

// startedWriter tells when the command printed something.
type startedWriter struct{ started func() }

func (w startedWriter) Write(p []byte) (int, error) {
	w.started()
	return len(p), nil
}

func TestStepsTellHowTheyEnded(t *testing.T) {
	var out strings.Builder
	steps := Steps{Out: &out}
	if err := steps.Do("First", func() error { return nil }); err != nil {
		t.Error(err)
	}
	err := steps.Do("Second", func() error { return errors.New("broken") })
	if err == nil || err.Error() != "Second: broken" {
		t.Errorf("error %v, want Second: broken", err)
	}
	for _, want := range []string{"==> First\n    done in ", "==> Second\n    failed after "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output %q does not have %q", out.String(), want)
		}
	}
}
