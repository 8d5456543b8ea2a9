package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTrainingFailsWithoutAGPU(t *testing.T) {
	tests := map[string]struct {
		smi  string
		want string
	}{
		"no nvidia-smi":      {want: "looking for GPUs"},
		"nvidia-smi fails":   {smi: "#!/bin/sh\necho no driver; exit 9\n", want: "no driver"},
		"nvidia-smi is bare": {smi: "#!/bin/sh\n", want: "nvidia-smi lists none"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			if test.smi != "" {
				if err := os.WriteFile(filepath.Join(path, "nvidia-smi"), []byte(test.smi), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", path)
			err := python(context.Background(), []string{"train.py"}, &bytes.Buffer{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one that says %q", err, test.want)
			}
		})
	}
}

func TestTrainingTellsWhatItWasGiven(t *testing.T) {
	path := t.TempDir()
	smi := "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n"
	if err := os.WriteFile(filepath.Join(path, "nvidia-smi"), []byte(smi), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", path)
	t.Setenv("NVIDIA_VISIBLE_DEVICES", "void")
	var out bytes.Buffer
	if err := python(context.Background(), []string{"train.py"}, &out); err != nil {
		t.Fatal(err)
	}
	want := "GPU 0: NVIDIA H200 (UUID: GPU-1)\nNVIDIA_VISIBLE_DEVICES=void\ntrained on 1 GPU(s)\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestAStubbornProgramEndsSomeTimeAfterItWasTold(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	start := time.Now()
	if err := stubborn(ctx, []string{"0.1"}, &bytes.Buffer{}); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Errorf("it ended after %v", took)
	}
}

func TestSleepEndsWhenStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := sleep(ctx, []string{"infinity"}, nil); err != nil {
		t.Error(err)
	}
}

func TestPingIsAnsweredByTheLoopback(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a raw socket needs root")
	}
	for _, address := range []string{"127.0.0.1", "::1"} {
		var out bytes.Buffer
		if err := ping(t.Context(), []string{"-c", "2", address}, &out); err != nil {
			t.Errorf("ping %s: %v\n%s", address, err, out.String())
		}
		if !strings.Contains(out.String(), "2 packets received") {
			t.Errorf("ping %s printed:\n%s", address, out.String())
		}
	}
}

func TestRoutesAreShownAsIPDoes(t *testing.T) {
	table := filepath.Join(t.TempDir(), "route")
	const content = "" +
		"Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"net1\t0000000A\tFE0AA8C0\t0003\t0\t0\t50\t000000FF\t0\t0\t0\n" +
		"net1\t000AA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	if err := os.WriteFile(table, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := showRoutes(table, &out); err != nil {
		t.Fatal(err)
	}
	want := "default via 10.244.0.1 dev eth0\n" +
		"10.0.0.0/8 via 192.168.10.254 dev net1 metric 50\n" +
		"192.168.10.0/24 dev net1\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}
