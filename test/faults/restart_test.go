package faults

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestRestart(t *testing.T) {
	for name, end := range map[string]func(*plugin){"stopped": (*plugin).stop, "killed": (*plugin).kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			c, other := n.newClaim("gpu-0", "gpu-1"), n.newClaim("gpu-1")
			p := n.start()
			p.mustPrepare(c)
			record := mustRead(t, n.record(c))
			end(p)

			p = n.start()
			waiting := make(chan error, 1)
			go func() { waiting <- p.prepareUnchecked(other) }()
			p.waitLog("Waiting for a device's release")
			p.mustPrepare(c)
			if after := mustRead(t, n.record(c)); after != record {
				t.Errorf("the record changed from %s to %s", record, after)
			}
			p.mustUnprepare(c)
			if err := <-waiting; err != nil {
				t.Fatal(err)
			}
			p.mustUnprepare(other)
			n.mustBeClean()
			p.mustGiveAll()
		})
	}
}

// After a reboot the CDI folder is empty, and kubelet has the pods prepared
// again that it restarts. A pod that was deleted meanwhile never comes back.
func TestReboot(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ownHost("boot-1")
	stays, deleted := n.newClaim("gpu-0"), n.newClaim("gpu-1")
	p := n.start(as("u1"))
	p.mustPrepare(stays)
	p.mustPrepare(deleted)
	p.kill()

	n.ownHost("boot-2")
	n.remove(n.cdiDir())
	n.forget(deleted)
	p = n.start(as("u1"))
	p.waitLog("Claim released")
	p.mustPrepare(stays)
	if record := mustRead(t, n.record(stays)); !strings.Contains(record, "boot-2") {
		t.Errorf("the record is of another boot: %s", record)
	}
	p.mustUnprepare(stays)
	n.mustBeClean()
	p.mustGiveAll()
}

// A machine that lost power may have lost the files that were not synced: all
// holdings, but no record.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ownHost("boot-1")
	c := n.newClaim("gpu-0")
	p := n.start()
	p.mustPrepare(c)
	p.kill()
	n.ownHost("boot-2")
	for _, dir := range []string{n.cdiDir(), filepath.Join(n.dataDir(), "devices"), filepath.Join(n.dataDir(), "dra-device-metadata")} {
		n.remove(dir)
	}
	p = n.start()
	thief := n.newClaim("gpu-0")
	waiting := make(chan error, 1)
	go func() { waiting <- p.prepareUnchecked(thief) }()
	p.waitLog("Waiting for a device's release")
	p.mustPrepare(c)
	p.mustUnprepare(c)
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	p.mustUnprepare(thief)
	n.mustBeClean()
}

// The pod was deleted by force while the plugin was down. Its device is free
// once its last process has ended, and not before.
func TestForceDeletedWhileThePluginWasDown(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ownHost("boot-1")
	pod := n.newPod()
	a := n.allocation("gpu-0")
	a.Pods = []*corev1.Pod{pod}
	old := n.allocate(a)
	p := n.start()
	p.mustPrepare(old)
	end := n.runProcess(pod.UID)
	p.kill()
	n.forget(old)

	p = n.start()
	next := n.newClaim("gpu-0")
	done := make(chan error, 1)
	go func() { done <- p.prepareUnchecked(next) }()
	p.waitLog("Waiting for a device's release")
	// For longer than the plugin waits between two looks at the API server.
	select {
	case err := <-done:
		t.Fatalf("a second claim was prepared while the first one's pod still runs, or failed: %v", err)
	case <-time.After(3 * time.Second):
	}
	if !exists(n.record(old)) {
		t.Fatal("the device was taken from a pod that still runs")
	}
	end()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	p.mustPrepare(next)
	p.mustUnprepare(next)
	n.mustBeClean()
	p.mustGiveAll()
}

// A claim that was deleted while the plugin was down, with no process left, is
// released at the start.
func TestDeletedWhileThePluginWasDown(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.start()
	deleted, deallocated, moved, stays := n.newClaim("gpu-0"), n.newClaim("gpu-1"), n.newClaim("gpu-2"), n.newClaim("gpu-3")
	for _, c := range []claim{deleted, deallocated, moved, stays} {
		p.mustPrepare(c)
	}
	p.kill()
	n.forget(deleted)
	n.deallocate(deallocated)
	n.reallocate(moved, "gpu-7")
	p = n.start()
	for _, c := range []claim{deleted, deallocated, moved} {
		eventually(t, "released", func() error {
			if exists(n.record(c)) {
				return errors.New(n.record(c) + " is there")
			}
			return nil
		})
	}
	p.mustPrepare(stays)
	moved.devices = []string{"gpu-7"}
	p.mustPrepare(moved)
	p.mustUnprepare(stays)
	p.mustUnprepare(moved)
	n.mustBeClean()
	p.mustGiveAll()
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// edit changes a JSON file.
func (n *node) edit(path string, change func(map[string]any)) {
	n.t.Helper()
	var content map[string]any
	if err := json.Unmarshal([]byte(mustRead(n.t, path)), &content); err != nil {
		n.t.Fatal(err)
	}
	change(content)
	data, err := json.Marshal(content)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(path, string(data))
}
