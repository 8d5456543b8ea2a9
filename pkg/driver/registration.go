package driver

import (
	"context"
	"time"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// lookEvery is how often the slices are looked after.
	lookEvery = 5 * time.Second
	// restoreEvery is the same for the time after kubelet has registered the
	// plugin, of restoreFor.
	restoreEvery = time.Second
	restoreFor   = 30 * time.Second
)

// onRegistration returns an interceptor that calls registered when kubelet has
// accepted the plugin.
//
// A kubelet that starts deletes all slices of its node, a little before or
// after it registers the plugins. The helper waits 30 s before it repairs such
// a thing, and meanwhile no claim could be allocated on the node.
func onRegistration(registered func()) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		answer, err := handler(ctx, request)
		if status, ok := request.(*registerapi.RegistrationStatus); ok && status.PluginRegistered && err == nil {
			registered()
		}
		return answer, err
	}
}

// restoring ticks, faster for a while after a registration. Publishing again
// asks nothing of the API server while the slices are there.
//
// It never stops: kubelet also deletes the slices of a plugin that was away for
// 30 s. On a node that is cut off it cannot, and goes on trying, at intervals of
// up to 5 min, however long the plugin is back (wipeResourceSlices in
// pkg/kubelet/cm/dra/plugin/dra_plugin_manager.go of Kubernetes 1.37).
type restoring struct {
	ticker *time.Ticker
	until  time.Time
}

func newRestoring() *restoring {
	return &restoring{ticker: time.NewTicker(lookEvery)}
}

func (r *restoring) start() {
	r.until = time.Now().Add(restoreFor)
	r.ticker.Reset(restoreEvery)
}

func (r *restoring) tick() {
	if time.Now().After(r.until) {
		r.ticker.Reset(lookEvery)
	}
}
