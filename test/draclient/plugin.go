package draclient

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/types"
	drav1 "k8s.io/kubelet/pkg/apis/dra/v1"
	drav1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Claim is what kubelet tells a plugin about a claim.
type Claim struct {
	Namespace, Name string
	UID             types.UID
}

// String is for people.
func (c Claim) String() string { return c.Namespace + "/" + c.Name + ":" + string(c.UID) }

// Device is what a plugin answers about one prepared device.
type Device struct {
	Requests     []string
	Pool, Device string
	CDIDeviceIDs []string
}

// Prepared is a plugin's answer about one claim.
type Prepared struct {
	Devices []Device
	// Err is the error that the plugin gives for this claim.
	Err error
}

// Plugin is a registered plugin. Its methods may be called from several
// goroutines.
type Plugin struct {
	// Driver, Endpoint and Services are what the plugin told at registration.
	Driver   string
	Endpoint string
	Services []string

	conn    *grpc.ClientConn
	service service
}

// service is one version of the gRPC API, spoken in terms of v1.
type service interface {
	NodePrepareResources(context.Context, *drav1.NodePrepareResourcesRequest, ...grpc.CallOption) (*drav1.NodePrepareResourcesResponse, error)
	NodeUnprepareResources(context.Context, *drav1.NodeUnprepareResourcesRequest, ...grpc.CallOption) (*drav1.NodeUnprepareResourcesResponse, error)
}

// Services returns the versions of the DRA API that this package speaks, the
// preferred one first.
func Services() []string {
	return []string{drav1.DRAPluginService, drav1beta1.DRAPluginService}
}

// Register registers the plugin behind a registrar socket as kubelet does, and
// connects to it with the newest API that both sides speak. An error of
// another kind of plugin than DRA's is [ErrNotDRA].
func Register(ctx context.Context, socket string) (*Plugin, error) {
	return RegisterWith(ctx, socket, Services()...)
}

// ErrNotDRA says that a socket is not that of a DRA plugin.
var ErrNotDRA = errors.New("not a DRA plugin")

// RegisterWith is [Register] with the API versions to choose from, the
// preferred one first.
func RegisterWith(ctx context.Context, socket string, services ...string) (_ *Plugin, err error) {
	conn, err := dial(socket)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	registrar := registration.NewRegistrationClient(conn)
	info, err := registrar.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask %s for the plugin's name: %w", socket, err)
	}
	if info.GetType() != registration.DRAPlugin {
		return nil, fmt.Errorf("register %s of type %q: %w", socket, info.GetType(), ErrNotDRA)
	}
	p, refusal := connect(info, services)
	status := &registration.RegistrationStatus{PluginRegistered: refusal == nil}
	if refusal != nil {
		status.Error = refusal.Error()
	}
	if _, err := registrar.NotifyRegistrationStatus(ctx, status); err != nil && refusal == nil {
		return nil, errors.Join(fmt.Errorf("tell plugin %s that it is registered: %w", info.GetName(), err), p.Close())
	}
	return p, refusal
}

func connect(info *registration.PluginInfo, services []string) (*Plugin, error) {
	p := &Plugin{Driver: info.GetName(), Endpoint: info.GetEndpoint(), Services: info.GetSupportedVersions()}
	for _, name := range services {
		if !slices.Contains(p.Services, name) {
			continue
		}
		conn, err := dial(p.Endpoint)
		if err != nil {
			return nil, err
		}
		p.conn = conn
		switch name {
		case drav1.DRAPluginService:
			p.service = drav1.NewDRAPluginClient(conn)
		case drav1beta1.DRAPluginService:
			p.service = drav1beta1.V1Beta1ClientWrapper{DRAPluginClient: drav1beta1.NewDRAPluginClient(conn)}
		default:
			return nil, errors.Join(fmt.Errorf("service %q is not among those known here: %v", name, Services()), conn.Close())
		}
		return p, nil
	}
	return nil, fmt.Errorf("plugin %s offers %v, none of which is among %v", p.Driver, p.Services, services)
}

// dial connects to a Unix socket at the first call.
func dial(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	return conn, nil
}

// Close ends the connection. The plugin is not told, as kubelet does not tell
// it either.
func (p *Plugin) Close() error {
	if err := p.conn.Close(); err != nil {
		return fmt.Errorf("close the connection to %s: %w", p.Endpoint, err)
	}
	return nil
}

// Prepare has claims prepared in one call, as kubelet does for one pod. The
// answer has an entry for every claim. An error means that the call as a whole
// failed.
func (p *Plugin) Prepare(ctx context.Context, claims ...Claim) (map[types.UID]Prepared, error) {
	response, err := p.service.NodePrepareResources(ctx, &drav1.NodePrepareResourcesRequest{Claims: wire(claims)})
	if err != nil {
		return nil, fmt.Errorf("prepare claims %v: %w", claims, err)
	}
	answers := map[types.UID]Prepared{}
	for _, claim := range claims {
		answer, ok := response.GetClaims()[string(claim.UID)]
		switch {
		case !ok:
			answers[claim.UID] = Prepared{Err: fmt.Errorf("prepare claim %s: the plugin's answer leaves it out", claim)}
		case answer.GetError() != "":
			answers[claim.UID] = Prepared{Err: fmt.Errorf("prepare claim %s: %s", claim, answer.GetError())}
		default:
			answers[claim.UID] = Prepared{Devices: devices(answer.GetDevices())}
		}
	}
	return answers, nil
}

// PrepareOne has one claim prepared and returns its devices.
func (p *Plugin) PrepareOne(ctx context.Context, claim Claim) ([]Device, error) {
	answers, err := p.Prepare(ctx, claim)
	if err != nil {
		return nil, err
	}
	return answers[claim.UID].Devices, answers[claim.UID].Err
}

// Unprepare has claims unprepared in one call. The answer has an entry for
// every claim, nil where it went well. An error means that the call as a whole
// failed.
func (p *Plugin) Unprepare(ctx context.Context, claims ...Claim) (map[types.UID]error, error) {
	response, err := p.service.NodeUnprepareResources(ctx, &drav1.NodeUnprepareResourcesRequest{Claims: wire(claims)})
	if err != nil {
		return nil, fmt.Errorf("unprepare claims %v: %w", claims, err)
	}
	answers := map[types.UID]error{}
	for _, claim := range claims {
		answer, ok := response.GetClaims()[string(claim.UID)]
		switch {
		case !ok:
			answers[claim.UID] = fmt.Errorf("unprepare claim %s: the plugin's answer leaves it out", claim)
		case answer.GetError() != "":
			answers[claim.UID] = fmt.Errorf("unprepare claim %s: %s", claim, answer.GetError())
		default:
			answers[claim.UID] = nil
		}
	}
	return answers, nil
}

// UnprepareOne has one claim unprepared.
func (p *Plugin) UnprepareOne(ctx context.Context, claim Claim) error {
	answers, err := p.Unprepare(ctx, claim)
	if err != nil {
		return err
	}
	return answers[claim.UID]
}

func wire(claims []Claim) []*drav1.Claim {
	var out []*drav1.Claim
	for _, claim := range claims {
		out = append(out, &drav1.Claim{Namespace: claim.Namespace, Name: claim.Name, Uid: string(claim.UID)})
	}
	return out
}

func devices(in []*drav1.Device) []Device {
	var out []Device
	for _, d := range in {
		out = append(out, Device{Requests: d.GetRequestNames(), Pool: d.GetPoolName(), Device: d.GetDeviceName(), CDIDeviceIDs: d.GetCdiDeviceIds()})
	}
	return out
}
