package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/attachsocket"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstatus"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// acceptPause is how long the server rests when the system is short of
// something.
const acceptPause = 100 * time.Millisecond

// attachServer answers the attach hooks of containers that are about to start.
type attachServer struct {
	driver   *Driver
	listener *attachsocket.Listener
	statuses *claimstatus.Writer
	calls    sync.WaitGroup
}

func newAttachSeconds() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: metricsNamespace, Name: "attach_duration_seconds",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		Help:    "Time to join all devices of one claim to one container's sandbox.",
	}, []string{"outcome"})
}

// serveAttach answers attach hooks until ctx is done or stop is called, which
// returns when all calls have ended. Nodes without devices that are attached
// have nothing to serve.
func (d *Driver) serveAttach(ctx context.Context) (stop func() error, err error) {
	if d.options.AttachHook == "" {
		return func() error { return nil }, nil
	}
	dir := filepath.Join(d.options.DataDir, attachsocket.Folder)
	dead, err := attachsocket.RemoveDead(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("look for stale sockets: %w", err)
	}
	if len(dead) > 0 {
		klog.FromContext(ctx).Info("Removed the sockets of instances that are gone", "folder", dir, "sockets", dead)
	}
	listener, err := attachsocket.Listen(dir, d.instance())
	if err != nil {
		return nil, fmt.Errorf("serve the attach hook: %w: see that %s can be written", err, dir)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &attachServer{driver: d, listener: listener, statuses: d.statuses}
	s.calls.Go(func() { s.statuses.Run(ctx) })
	s.calls.Go(func() { s.acceptAll(ctx) })
	return func() error {
		cancel(errStopping)
		err := listener.Close()
		s.calls.Wait()
		return err
	}, nil
}

// instance names this instance of the plugin among those of one driver.
func (d *Driver) instance() string {
	if d.options.PodUID == "" {
		return "plugin"
	}
	return string(d.options.PodUID)
}

// errStopping ends the calls of a plugin that stops.
var errStopping = errors.New("the kubelet plugin stops")

func (s *attachServer) acceptAll(ctx context.Context) {
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			// Each by itself: a caller that hangs keeps nobody waiting.
			s.calls.Go(func() { s.serve(ctx, conn) })
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		klog.FromContext(ctx).Error(err, "Cannot take a call of the attach hook")
		select {
		case <-ctx.Done():
		case <-time.After(acceptPause):
		}
	}
}

func (s *attachServer) serve(ctx context.Context, conn *attachsocket.Conn) {
	logger := klog.FromContext(ctx)
	defer func() { _ = conn.Close() }() // the caller has its answer, or is gone
	request, netns, err := conn.Receive()
	if errors.Is(err, attachsocket.ErrNoRequest) {
		return
	}
	if err != nil {
		logger.Error(err, "A call of the attach hook was not understood")
		return
	}
	defer func() {
		if err := netns.Close(); err != nil {
			logger.Error(err, "Cannot close a network namespace")
		}
	}()
	answer := attachsocket.Answer{}
	if err := s.attach(ctx, request, netns); err != nil {
		// Another instance, or the next one, does what this one cannot.
		answer = attachsocket.Answer{Error: err.Error(), Retry: ctx.Err() != nil}
	}
	if err := conn.Answer(answer); err != nil {
		// What is attached stays, and the hook's next run finds it.
		logger.Info("The attach hook has not waited for its answer", "err", err, "claimUID", request.Claim)
	}
}

func (s *attachServer) attach(ctx context.Context, r attachsocket.Request, netns *os.File) error {
	start := time.Now()
	sandbox := device.Sandbox{
		Pod: device.Pod{Namespace: r.Pod.Namespace, Name: r.Pod.Name, UID: types.UID(r.Pod.UID)},
		ID:  r.SandboxID, Path: r.NetnsPath, Netns: netns,
	}
	uid := types.UID(r.Claim)
	logger := klog.FromContext(ctx).WithValues("claimUID", uid, "pod", klog.KRef(r.Pod.Namespace, r.Pod.Name), "podUID", r.Pod.UID, "sandbox", r.SandboxID)
	wait := tryFor(min(time.Duration(r.WaitMilliseconds)*time.Millisecond, s.driver.options.AttachWait))
	ctx, cancel := context.WithTimeoutCause(klog.NewContext(ctx, logger), wait, fmt.Errorf("gave up after %s", wait.Round(time.Millisecond)))
	defer cancel()

	record, err := s.attachSandbox(ctx, uid, sandbox)
	observe(s.driver.attachSeconds, start, err)
	if err != nil {
		err = fmt.Errorf("claim %s: not attached to pod %s: %w", claimName(uid, record), sandbox.Pod, err)
		logger.Error(err, "Devices not attached", "duration", time.Since(start))
		s.statuses.Failed(ctx, uid, err)
		return err
	}
	logger.Info("Devices attached", "claim", klog.KRef(record.Claim.Namespace, record.Claim.Name), "interfaces", interfacesIn(record, sandbox), "duration", time.Since(start))
	s.statuses.Attached(ctx, uid)
	return nil
}

// tryFor is how much of the time that a container waits is spent on attaching:
// the rest is for undoing it, for only then the reason can be told.
func tryFor(wait time.Duration) time.Duration { return wait * 3 / 5 }

func (s *attachServer) attachSandbox(ctx context.Context, uid types.UID, sandbox device.Sandbox) (*claimstore.Record, error) {
	if err := faultpoint.At(faultpoint.AttachReceived); err != nil {
		return nil, err
	}
	if uid == "" || sandbox.ID == "" || sandbox.Pod.UID == "" {
		return nil, fmt.Errorf("the request lacks the UID of the claim (%q) or the pod (%q), or the id of the sandbox (%q)", uid, sandbox.Pod.UID, sandbox.ID)
	}
	var err error
	if sandbox.Namespace, err = attachsocket.Identity(sandbox.Netns); err != nil {
		return nil, err
	}
	record, err := s.driver.attachClaim(ctx, uid, sandbox)
	if err == nil {
		err = faultpoint.At(faultpoint.AttachAnswer)
	}
	return record, err
}

// claimName names a claim for a person, as well as is known.
func claimName(uid types.UID, record *claimstore.Record) string {
	if record == nil {
		return string(uid)
	}
	return record.Claim.Namespace + "/" + record.Claim.Name
}
