package kernel

import (
	"context"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	k, _ := newKernel(t)
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- k.Host().Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	await := func(what string, do func()) {
		t.Helper()
		// Watching begins at some time after the call, so the change is made
		// until it is seen.
		deadline := time.After(10 * time.Second)
		for {
			do()
			select {
			case <-changed:
				return
			case <-time.After(50 * time.Millisecond):
			case <-deadline:
				t.Fatalf("nobody told that %s", what)
			}
		}
	}
	addVeth(t, k.Host(), "left", "right")
	index, name := find(t, k.Host(), "left").Index, "first"
	await("an interface was renamed", func() {
		must(t, k.Host().Rename(index, name))
		name += "x"
		if len(name) > 14 {
			name = "first"
		}
	})
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Watch was told to end and says %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Watch goes on after its context is done")
	}
}

func TestUeventMatters(t *testing.T) {
	for message, want := range map[string]bool{
		"bind@/devices/pci0000:40/0000:43:10.0\x00ACTION=bind\x00SUBSYSTEM=pci\x00":   true,
		"add@/devices/virtual/net/lo\x00ACTION=add\x00SUBSYSTEM=net\x00":              true,
		"change@/devices/virtual/block/loop0\x00ACTION=change\x00SUBSYSTEM=block\x00": false,
		"": false,
	} {
		if got := ueventMatters([]byte(message)); got != want {
			t.Errorf("%q: got %v, want %v", message, got, want)
		}
	}
}
