package driver

import (
	"context"
	"time"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// restoreEvery and restoreFor are how often, and how long after kubelet has
	// registered the plugin, the slices are looked after. The helper repairs
	// what others delete after 30 s, so there is no need to go on for longer.
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

// restoring ticks for a while after the last registration. Publishing again
// asks nothing of the API server while the slices are there.
type restoring struct {
	ticker *time.Ticker
	until  time.Time
}

func newRestoring() *restoring {
	r := &restoring{ticker: time.NewTicker(restoreEvery)}
	r.ticker.Stop()
	return r
}

func (r *restoring) start() {
	r.until = time.Now().Add(restoreFor)
	r.ticker.Reset(restoreEvery)
}

func (r *restoring) tick() {
	if time.Now().After(r.until) {
		r.ticker.Stop()
	}
}
