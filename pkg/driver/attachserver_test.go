package driver

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/attachsocket"
)

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: only root may ask for an attachment")
	}
}

func (n *attachNode) sockets() []string {
	n.t.Helper()
	names, err := attachsocket.Sockets(filepath.Join(n.dataDir(), attachsocket.Folder))
	if err != nil {
		n.t.Fatal(err)
	}
	return names
}

// mustAnswer asks an instance and expects an answer.
func (n *attachNode) mustAnswer(socket, claim string, s device.Sandbox) attachsocket.Answer {
	n.t.Helper()
	a, err := n.ask(socket, claim, s)
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

func TestServesTheHook(t *testing.T) {
	needsRoot(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	n := newAttachNode(t, "net1", "net2")
	d := n.instance("pod-1")
	mustPrepare(t, d, newClaim("a", []string{"net1"}))
	stop := n.serve(d)
	defer stop()
	s := sandboxOf(t, "sandbox-1", "pod-a")
	if a := n.mustAnswer("pod-1.sock", "a", s); a != (attachsocket.Answer{}) {
		t.Errorf("unexpected answer %+v", a)
	}
	identity, err := attachsocket.Identity(s.Netns)
	if err != nil {
		t.Fatal(err)
	}
	want := device.Sandbox{Pod: s.Pod, ID: s.ID, Path: s.Path, Namespace: identity}
	if diff := cmp.Diff(want, n.record("a").Attached[0].Sandbox); diff != "" {
		t.Errorf("sandbox (-want +got):\n%s", diff)
	}

	n.vfs.set(func(f *fakeVFs) { f.fail["net1"] = errors.New("link refused") })
	a := n.mustAnswer("pod-1.sock", "a", sandboxOf(t, "sandbox-2", "pod-a"))
	if want := `claim ns/claim-a: not attached to pod ns/pod-a: device "net1" (request "r0"): link refused`; a.Error != want || a.Retry {
		t.Errorf("answer %+v, want %q", a, want)
	}
	if a := n.mustAnswer("pod-1.sock", "b", s); !strings.Contains(a.Error, "claim b: not attached to pod ns/pod-a: it is not prepared on this node") {
		t.Errorf("unexpected answer %+v", a)
	}
	stop()
	if got := n.sockets(); len(got) > 0 {
		t.Errorf("sockets left: %v", got)
	}
}

func TestCallersThatMakeNoSense(t *testing.T) {
	needsRoot(t)
	n := newAttachNode(t, "net1")
	d := n.instance("pod-1")
	mustPrepare(t, d, newClaim("a", []string{"net1"}))
	n.serve(d)
	s := sandboxOf(t, "sandbox-1", "pod-a")

	// One that says nothing, for as long as the test runs.
	dir := filepath.Join(n.dataDir(), attachsocket.Folder)
	t.Chdir(dir)
	silent, err := (&net.Dialer{}).DialContext(t.Context(), "unixpacket", "pod-1.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := silent.Close(); err != nil {
			t.Error(err)
		}
	}()
	// One without a descriptor.
	for _, message := range []string{`{"claim":"a"}`, `nonsense`, strings.Repeat("x", 40<<10)} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "unixpacket", "pod-1.sock")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(message)); err != nil {
			t.Fatal(err)
		}
		if got, err := conn.Read(make([]byte, 100)); err == nil {
			t.Errorf("%.20q was answered with %d bytes", message, got)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	// One whose descriptor is something else.
	file, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}()
	if a := n.mustAnswer("pod-1.sock", "a", device.Sandbox{Pod: s.Pod, ID: s.ID, Netns: file}); !strings.Contains(a.Error, "not a network namespace") {
		t.Errorf("unexpected answer %+v", a)
	}
	if a := n.mustAnswer("pod-1.sock", "a", device.Sandbox{ID: s.ID, Netns: s.Netns}); !strings.Contains(a.Error, "lacks the UID") {
		t.Errorf("unexpected answer %+v", a)
	}
	if a := n.mustAnswer("pod-1.sock", "a", s); a.Error != "" {
		t.Errorf("unexpected answer %+v", a)
	}
}

// Two instances serve during an update; the one that ends does not take the
// socket of the other with it.
func TestInstancesSideBySide(t *testing.T) {
	needsRoot(t)
	n := newAttachNode(t, "net1")
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1"}))
	stopFirst := n.serve(d)
	n.serve(n.instance("")) // the same name, outside of pods
	stopFirst()
	s := sandboxOf(t, "sandbox-1", "pod-a")
	if a := n.mustAnswer("plugin.sock", "a", s); a.Error != "" {
		t.Errorf("unexpected answer %+v", a)
	}
	stopNew := n.serve(n.instance("new"))
	if diff := cmp.Diff([]string{"new.sock", "plugin.sock"}, n.sockets()); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
	stopNew()
	if a := n.mustAnswer("plugin.sock", "a", s); a.Error != "" {
		t.Errorf("unexpected answer %+v", a)
	}
}

func TestSocketsOfKilledInstancesAreRemoved(t *testing.T) {
	n := newAttachNode(t)
	dir := filepath.Join(n.dataDir(), attachsocket.Folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, name := range []string{"dead.sock", ".half.sock"} {
		l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	n.serve(n.instance("living"))
	n.serve(n.instance("next"))
	if err := os.Chtimes("living.sock", time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"next.sock", "living.sock"}, n.sockets()); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
}

// A caller that is killed while the work goes on finds it done the next time.
func TestCallerThatIsKilled(t *testing.T) {
	needsRoot(t)
	n := newAttachNode(t, "net1")
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1"}))
	n.vfs.entered, n.vfs.hang = make(chan string, 1), make(chan struct{})
	n.serve(d)
	s := sandboxOf(t, "sandbox-1", "pod-a")
	ctx, kill := context.WithCancel(t.Context())
	called := make(chan error, 1)
	go func() {
		_, err := attachsocket.Call(ctx, filepath.Join(n.dataDir(), attachsocket.Folder), "plugin.sock", requestFor("a", s), s.Netns)
		called <- err
	}()
	<-n.vfs.entered
	kill()
	if err := <-called; err == nil {
		t.Error("a killed caller got an answer")
	}
	hang := n.vfs.hang
	n.vfs.set(func(f *fakeVFs) { f.entered, f.hang = nil, nil })
	close(hang)
	if a := n.mustAnswer("plugin.sock", "a", s); a.Error != "" {
		t.Errorf("unexpected answer %+v", a)
	}
	if n.vfs.moved() != 1 {
		t.Errorf("%d moves, want 1", n.vfs.moved())
	}
}

// What hangs ends with the caller's patience and says so, and what it had done
// is undone.
func TestAttachThatHangs(t *testing.T) {
	needsRoot(t)
	n := newAttachNode(t, "net1")
	n.attachWait = 100 * time.Millisecond
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1"}))
	n.vfs.hang = make(chan struct{})
	n.serve(d)
	a := n.mustAnswer("plugin.sock", "a", sandboxOf(t, "sandbox-1", "pod-a"))
	if !strings.Contains(a.Error, `device "net1"`) || !strings.Contains(a.Error, "rename the interface") || !strings.Contains(a.Error, "gave up after") || a.Retry {
		t.Errorf("unexpected answer %+v", a)
	}
}

// A plugin that stops sends the caller to the next one.
func TestStoppingInstance(t *testing.T) {
	needsRoot(t)
	n := newAttachNode(t, "net1")
	d := n.instance("")
	mustPrepare(t, d, newClaim("a", []string{"net1"}))
	n.vfs.entered, n.vfs.hang = make(chan string, 1), make(chan struct{})
	stop := n.serve(d)
	answered := make(chan attachsocket.Answer, 1)
	s := sandboxOf(t, "sandbox-1", "pod-a")
	go func() {
		a, err := n.ask("plugin.sock", "a", s)
		if err != nil {
			a.Error = err.Error()
		}
		answered <- a
	}()
	<-n.vfs.entered
	stop()
	if a := <-answered; !a.Retry || !strings.Contains(a.Error, "the kubelet plugin stops") {
		t.Errorf("unexpected answer %+v", a)
	}
}
