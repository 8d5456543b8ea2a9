package deviceplugin

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// hang has the next preparation not end before answer is called.
func (f *fakeFamily) hang(t *testing.T) (hangs <-chan struct{}, answer func()) {
	t.Helper()
	begun, over := make(chan struct{}), make(chan struct{})
	answer = sync.OnceFunc(func() { close(over) })
	t.Cleanup(answer)
	var once sync.Once
	f.hold(func() {
		mine := false
		once.Do(func() { mine = true })
		if mine {
			close(begun)
			<-over
		}
	})
	return begun, answer
}

func TestAPreparationThatHangsDoesNotKeepAKubeletThatRestartsWaiting(t *testing.T) {
	n := newNode(t)
	n.start(gpus(0, 1), func(o *Options) { o.PrepareWithin = time.Hour })
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	hangs, answer := n.gpus.hang(t)
	go func() { _, _ = n.kubelet.allocate(gpuName, "GPU-0") }() // kubelet ends before it is answered
	<-hangs
	n.kubelet.stop()
	n.kubelet.start()
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	answer()
}

// Nor does what does not heed that kubelet has gone, such as a read from procfs.
func TestACallThatHangsDoesNotKeepAKubeletThatRestartsWaiting(t *testing.T) {
	n := newNode(t)
	n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	hangs, over := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(over) })
	begin := sync.OnceFunc(func() { close(hangs) })
	n.processes.onLook(func() {
		begin()
		<-over
	})
	go func() { _, _ = n.kubelet.allocate(gpuName, "GPU-0") }() // kubelet ends before it is answered
	<-hangs
	n.kubelet.stop()
	n.kubelet.start()
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
}

func TestADeviceWhosePreparationHangsIsUnhealthyUntilItEnds(t *testing.T) {
	n := newNode(t)
	n.start(gpus(0, 1), func(o *Options) { o.PrepareWithin = 20 * time.Millisecond })
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	_, answer := n.gpus.hang(t)
	_, err := n.kubelet.allocate(gpuName, "GPU-0", "GPU-1")
	if err != nil { // else a step has the one that hangs
		wantError(t, err, "it is not ready within 20ms, since its hardware or the kernel does not answer")
	}
	eventually(t, "one unhealthy", func() error {
		health := n.kubelet.health(gpuName)
		if (health["GPU-0"] == "Unhealthy") == (health["GPU-1"] == "Unhealthy") {
			return fmt.Errorf("kubelet was told %v", health)
		}
		return nil
	})
	answer()
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
}

// A family that has not ended may still change the device.
func TestADeviceIsNotGivenBackWhileItsPreparationHangs(t *testing.T) {
	n := newNode(t)
	p := n.open("gpu", gpus(0), nil)
	t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	p.options.PrepareWithin = time.Millisecond
	hangs, answer := n.gpus.hang(t)
	i := p.items().byID("GPU-0")
	wantError(t, p.prepare(t.Context(), i), "it is not ready within 1ms")
	<-hangs
	free := func() string {
		if err := p.free(t.Context(), i.holder(), i.Occupies, time.Now()); err != nil {
			t.Fatal(err)
		}
		return n.holder(0)
	}
	if free() == "" {
		t.Error("the device is free for claims")
	}
	answer()
	eventually(t, "answered", func() error { return p.prepare(t.Context(), i) })
	if who := free(); who != "" {
		t.Errorf("still held by %s", who)
	}
}

// Who gives many devices back takes a while, in which the other instance goes on
// answering kubelet.
func TestWhatIsGivenWhileOthersAreFreedIsKept(t *testing.T) {
	n := newNode(t)
	p := n.open("gpu", gpus(0), func(o *Options) { o.CommitWait = time.Hour })
	t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	for name, test := range map[string]struct {
		asked, allocated time.Duration // from now
		want             bool
	}{
		"long before":                {0, -10 * time.Hour, false},
		"shortly before":             {0, -time.Hour / 2, true},
		"since, and shortly after":   {-10 * time.Hour, -10*time.Hour + time.Hour/2, true},
		"since, and long after":      {-10 * time.Hour, -5 * time.Hour, true},
		"by a clock that was ahead":  {0, 10 * time.Hour, false},
		"by a clock slightly ahead":  {0, time.Hour / 2, true},
		"before, and asked long ago": {-10 * time.Hour, -20 * time.Hour, false},
	} {
		h := p.items().byID("GPU-0").holding()
		at := time.Now().Add(test.allocated).Round(0) // as read from a file
		h.DevicePlugin.AllocatedAt, h.DevicePlugin.BootID = &at, testBoot
		if got := p.committing(h, time.Now().Add(test.asked)); got != test.want {
			t.Errorf("%s: committing is %v, want %v", name, got, test.want)
		}
	}
}
