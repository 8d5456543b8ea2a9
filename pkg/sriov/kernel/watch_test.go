package kernel

import (
	"context"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	k, _ := newKernel(t)
	addVeth(t, k.Host(), "left", "right")
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
	select {
	case <-changed: // it listens
	case <-time.After(10 * time.Second):
		t.Fatal("Watch does not tell that it listens")
	}
	await := func(what string, do func()) {
		t.Helper()
		do()
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("nobody told that %s", what)
		}
	}
	index := find(t, k.Host(), "left").Index
	await("an interface was renamed", func() { must(t, k.Host().Rename(index, "other")) })
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
