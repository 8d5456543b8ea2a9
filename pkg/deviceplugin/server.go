package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
)

const (
	// kubeletSocket is the name of the socket on which kubelet is told of device
	// plugins. Kubelet makes it anew whenever it starts, and removes all others.
	kubeletSocket = "kubelet.sock"
	// registerWithin bounds a registration, in which kubelet calls back.
	registerWithin = 15 * time.Second
	// checkEvery is how often the sockets are looked at though nothing was heard
	// of them.
	checkEvery = 5 * time.Second
	// answerWithin bounds how long calls under way may take when a socket goes.
	answerWithin = 2 * time.Second
	// prefixLength bounds how much of the driver's name is in the name of a
	// socket, whose path may have 107 characters.
	prefixLength = 40
)

// server serves one resource.
type server struct {
	plugin   *Plugin
	resource *Resource
	name     string

	mu sync.Mutex
	// kubelet is the socket at which this was registered last.
	kubelet socketID
	// attempt counts registrations, those that failed too.
	attempt int
	// again tells that kubelet must be told anew.
	again bool
	// check has the sockets looked at now.
	check chan struct{}
}

// socketID tells one socket of a name from the next.
type socketID struct {
	inode   uint64
	changed unix.Timespec
}

// newServers returns a server for each resource of which there may be devices.
func (p *Plugin) newServers(ctx context.Context) ([]*server, error) {
	var servers []*server
	for n := range p.options.Resources {
		r := &p.options.Resources[n]
		if !slices.Contains(p.options.Kinds, r.Kind) {
			continue
		}
		hash := fnv.New32a()
		_, _ = fmt.Fprintln(hash, p.options.DriverName, r.Name, p.options.PodUID) // never fails
		servers = append(servers, &server{
			plugin: p, resource: r, check: make(chan struct{}, 1),
			name: fmt.Sprintf("%s%08x.sock", p.socketPrefix(), hash.Sum32()),
		})
	}
	_, err := os.Stat(p.options.Dir)
	if len(servers) == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for kubelet's folder of device plugins: %w: see that it is mounted, or that the configuration's devicePlugin.kinds is empty", err)
	}
	return servers, p.removeStale(ctx)
}

func (p *Plugin) socketPrefix() string {
	name := p.options.DriverName
	return name[:min(len(name), prefixLength)] + "-"
}

// removeStale removes the sockets of instances that were killed.
func (p *Plugin) removeStale(ctx context.Context) error {
	entries, err := os.ReadDir(p.options.Dir)
	if err != nil {
		return fmt.Errorf("look for sockets of instances that are gone: %w", err)
	}
	for _, entry := range entries {
		if entry.Type()&fs.ModeSocket == 0 || !strings.HasPrefix(entry.Name(), p.socketPrefix()) {
			continue
		}
		path := filepath.Join(p.options.Dir, entry.Name())
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			_ = conn.Close() // only the dialling mattered
			continue
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			continue
		}
		if err := wholefile.Remove(path); err != nil {
			return fmt.Errorf("remove the socket of an instance that is gone: %w", err)
		}
	}
	return nil
}

func (s *server) path() string { return filepath.Join(s.plugin.options.Dir, s.name) }

// run serves the resource, through any number of kubelets, until ctx is done.
func (s *server) run(ctx context.Context) (err error) {
	events, stop, every := s.watch(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	told := registering{}
	var serving *endpoint
	defer func() { serving.stop() }()
	for {
		if serving == nil || !serving.there() {
			serving.stop()
			if serving, err = s.listen(ctx); err != nil {
				return err
			}
		}
		pause := told.try(ctx, s, every)
		select {
		case <-ctx.Done():
			return nil
		case <-events:
		case <-s.check:
		case <-time.After(pause):
		}
	}
}

// watch returns what happens in kubelet's folder, and how often to look there all
// the same: more often where the kernel has no watch left to give.
func (s *server) watch(ctx context.Context) (events <-chan fsnotify.Event, stop func() error, every time.Duration) {
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(s.plugin.options.Dir); err == nil {
			return watcher.Events, watcher.Close, checkEvery
		}
		err = errors.Join(err, watcher.Close())
	}
	klog.FromContext(ctx).Error(err, "Kubelet's folder of device plugins cannot be watched: it is looked at again and again; more watches are allowed by fs.inotify.max_user_instances and max_user_watches of sysctl", "every", retryAfter)
	return nil, func() error { return nil }, retryAfter
}

// endpoint is a socket on which the server listens.
type endpoint struct {
	path string
	id   socketID
	grpc *grpc.Server
	end  context.CancelFunc
	done chan struct{}
}

// bind makes the socket. A kubelet that starts removes all, and another instance
// that starts those on which nobody listens (yet): then it is made again.
func (s *server) bind(ctx context.Context) (net.Listener, socketID, error) {
	for {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", s.path())
		if err != nil {
			return nil, socketID{}, fmt.Errorf("listen to kubelet: %w", err)
		}
		id, err := identify(s.path())
		if err == nil {
			return listener, id, nil
		}
		err = errors.Join(fmt.Errorf("look at the socket that was just made: %w", err), listener.Close())
		if !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
			return nil, socketID{}, err
		}
	}
}

func (s *server) listen(ctx context.Context) (*endpoint, error) {
	listener, id, err := s.bind(ctx)
	if err != nil {
		return nil, err
	}
	streams, end := context.WithCancel(ctx)
	e := &endpoint{path: s.path(), id: id, grpc: grpc.NewServer(), end: end, done: make(chan struct{})}
	api.RegisterDevicePluginServer(e.grpc, &session{server: s, ctx: streams})
	go func() {
		defer close(e.done)
		if err := e.grpc.Serve(listener); err != nil {
			klog.FromContext(ctx).Error(err, "Serving kubelet has ended", "resource", s.resource.Name)
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kubelet = socketID{}
	return e, nil
}

// there tells whether the socket is still the one that kubelet finds: it removes
// all when it starts.
func (e *endpoint) there() bool {
	id, err := identify(e.path)
	return err == nil && id == e.id
}

// stop ends what kubelet has asked for. Calls under way are answered, unless that takes
// so long that a kubelet that has started since would lack the resource.
func (e *endpoint) stop() {
	if e == nil {
		return
	}
	e.end()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		e.grpc.GracefulStop() // which at first removes the socket
		<-e.done
	}()
	select {
	case <-stopped:
	case <-time.After(answerWithin):
		// It waits for the calls under way, too, if their connections are gone already.
		go e.grpc.Stop()
	}
}

func identify(path string) (socketID, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return socketID{}, err
	}
	return socketID{stat.Ino, stat.Ctim}, nil
}

// register tells kubelet of the resource, if this kubelet was not told yet.
func (s *server) register(ctx context.Context) (err error) {
	path := filepath.Join(s.plugin.options.Dir, kubeletSocket)
	id, err := identify(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // kubelet does not run
	}
	if err != nil {
		return fmt.Errorf("look for kubelet's socket: %w", err)
	}
	s.mu.Lock()
	registered := s.kubelet == id && !s.again
	if !registered {
		s.attempt++
	}
	s.mu.Unlock()
	if registered {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, registerWithin)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	_, err = api.NewRegistrationClient(conn).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: s.name, ResourceName: s.resource.Name, Options: pluginOptions(),
	})
	s.plugin.metrics.registrations.WithLabelValues(s.resource.Name, outcome(err)).Inc()
	if err != nil {
		return fmt.Errorf("register %s with kubelet: %w", s.resource.Name, err)
	}
	s.mu.Lock()
	s.kubelet, s.again = id, false
	s.mu.Unlock()
	klog.FromContext(ctx).Info("Registered with kubelet", "resource", s.resource.Name, "socket", s.name)
	return nil
}

// ready returns nil once a kubelet was told of the resource.
func (s *server) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kubelet == (socketID{}) {
		return fmt.Errorf("resource %s is not registered with kubelet yet: see that it serves %s", s.resource.Name, filepath.Join(s.plugin.options.Dir, kubeletSocket))
	}
	return nil
}

// lost is told that kubelet has ended a connection. Unless this server has
// registered since, it does so again, a moment later.
//
// Kubelets before 1.37 end the connection of an instance, too, when that of the
// former instance ends, which they take for one (runClient in
// pkg/kubelet/cm/devicemanager/plugin/v1beta1/handler.go), and one that comes back
// at once may be mistaken once more.
func (s *server) lost(ctx context.Context, attempt int) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(retryAfter):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempt == attempt {
		s.again = true
		signal(s.check)
	}
}
