package faults

import (
	"fmt"
	"testing"
)

// A rolling update: two instances serve at the same time, kubelet calls either.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a, b, c := n.newClaim("gpu-0"), n.newClaim("gpu-1"), n.newClaim("gpu-0")
	older := n.start(as("u1"))
	older.mustPrepare(a)
	newer := n.start(as("u2"))

	// What one prepared, the other knows, waits for, and unprepares.
	newer.mustPrepare(a)
	waiting := make(chan error, 1)
	go func() { waiting <- newer.prepareUnchecked(c) }()
	newer.waitLog("Waiting for a device's release")
	older.mustUnprepare(a)
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	newer.mustUnprepare(c)
	newer.mustPrepare(a)

	// The old one is stopped while it has a call to answer. Kubelet repeats
	// that at the new one.
	go func() { waiting <- older.prepareUnchecked(c) }()
	older.waitLog("Waiting for a device's release")
	older.mustPrepare(b)
	older.stop()
	if err := <-waiting; err == nil {
		t.Error("a call was answered that could not succeed")
	}
	for path, want := range map[string]bool{
		older.socket(): false, older.registrarSocket(): false, newer.socket(): true, newer.registrarSocket(): true,
	} {
		if exists(path) != want {
			t.Errorf("%s is there: %v", path, !want)
		}
	}
	newer.register() // at the socket, not through the connection of before
	newer.mustUnprepare(b)
	go func() { waiting <- newer.prepareUnchecked(c) }()
	newer.mustUnprepare(a)
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	newer.mustPrepare(c)
	newer.mustUnprepare(c)
	n.mustBeClean()
	newer.mustGiveAll()
	newer.stop()
	n.mustBeClean()
}

// While the new instance starts, and looks at what is on disk, the old one
// unprepares all of it.
func TestUpdateWhilePodsEnd(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	claims := n.oneEach()
	older := n.start(as("u0"))
	for i := range 5 {
		for _, c := range claims {
			older.mustPrepare(c)
		}
		newer := n.launch(as(fmt.Sprintf("u%d", i+1)))
		newer.waitLog("serving a simulated") // the next thing is the recovery
		for _, c := range claims {
			older.mustUnprepare(c)
		}
		newer.register()
		n.mustBeClean()
		older.stop()
		older = newer
	}
	older.mustGiveAll()
}

// The same claim, asked for at both instances at once, many times.
func TestSameClaimAtTwoInstances(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.newClaim("gpu-0", "gpu-1")
	instances := []*plugin{n.start(as("u1")), n.start(as("u2"))}
	for range 10 {
		errs := make(chan error, 8)
		for i := range 8 {
			go func() { errs <- instances[i%2].prepareUnchecked(c) }()
		}
		for range 8 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		instances[0].mustPrepare(c)
		for i := range 8 {
			go func() { errs <- instances[i%2].unprepare(c) }()
		}
		for range 8 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		n.mustBeClean()
	}
	instances[1].mustGiveAll()
}

// A second plugin with the pod UID of the first would take its sockets away. It
// says so and ends; the first goes on.
func TestTwoPluginsByMistake(t *testing.T) {
	for name, uid := range map[string]string{"same pod": "u1", "no pod": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			c := n.newClaim("gpu-0")
			first := n.start(as(uid))
			first.mustPrepare(c)
			second := n.launch(as(uid))
			second.mustRefuse("another plugin serves "+first.socket(), "--pod-uid")
			first.register()
			first.mustPrepare(c)
			first.mustUnprepare(c)
			first.mustGiveAll()
			first.stop()
			n.mustBeClean()
		})
	}
}

// A pod that was killed leaves sockets, which the next pod, with a UID of its
// own, removes.
func TestSocketsOfAKilledPod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	killed := n.start(as("u1"))
	killed.kill()
	if !exists(killed.socket()) || !exists(killed.registrarSocket()) {
		t.Fatal("a killed plugin left no sockets: this test shows nothing")
	}
	p := n.start(as("u2"))
	n.mustBeClean()
	p.mustGiveAll()
	p.stop()
	n.mustBeClean()
}
