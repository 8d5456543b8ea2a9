package deviceplugin

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// leftSocket leaves a socket as a kubelet does that was killed.
func leftSocket(t *testing.T, path string) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
}

// refusingSocket is a kubelet that knows no registrations.
func refusingSocket(t *testing.T, path string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterRegistrationServer(server, api.UnimplementedRegistrationServer{})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
}

// A kubelet that is stopped may leave its socket for days, and one that refuses a
// resource does so for ever.
func TestAKubeletThatDoesNotRegisterIsAskedLessAndLess(t *testing.T) {
	for name, socket := range map[string]func(*testing.T, string){"it is stopped": leftSocket, "it refuses": refusingSocket} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			dir := filepath.Join(n.dir, "other")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			socket(t, filepath.Join(dir, kubeletSocket))
			p := n.open("gpu", gpus(0), func(o *Options) { o.Dir = dir })
			t.Cleanup(func() { _ = p.store.Close() })
			s := &server{plugin: p, resource: &p.options.Resources[0], name: "test.sock", check: make(chan struct{}, 1)}
			var log bytes.Buffer
			ctx := klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log))))
			var told registering
			for n, seconds := range []int{1, 2, 4, 8, 16, 30, 30} {
				want := time.Duration(seconds) * time.Second
				pause := told.try(ctx, s, time.Minute)
				if pause != want {
					t.Errorf("the pause is %s, want %s", pause, want)
				}
				told.next = time.Now().Add(time.Hour)
				if pause := told.try(ctx, s, checkEvery); pause != checkEvery {
					t.Errorf("it looks at kubelet's folder after %s", pause)
				}
				if s.attempt != n+1 {
					t.Errorf("kubelet was asked %d times, want %d", s.attempt, n+1)
				}
				told.next = time.Time{} // the pause is over
			}
			if count := strings.Count(log.String(), "Not registered with kubelet"); count != 1 {
				t.Errorf("the log says it %d times:\n%s", count, &log)
			}

			told.next = time.Now().Add(time.Hour)
			n.kubelet.stop()
			n.kubelet.dir = dir
			n.kubelet.start()
			endpoint, err := s.listen(ctx)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(endpoint.stop)
			if pause := told.try(ctx, s, time.Minute); pause != time.Minute || n.kubelet.registrations() != 1 {
				t.Errorf("a kubelet that starts is not told at once, but after %s; the log:\n%s", pause, &log)
			}
		})
	}
}
