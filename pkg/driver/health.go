package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Healthy returns nil if the plugin answers on its own sockets the way kubelet
// asks, and its folders are those of the host. A plugin that is not healthy
// must be restarted.
func (d *Driver) Healthy(ctx context.Context) (err error) {
	for _, dir := range []string{d.options.DataDir, d.options.RegistrarDir, d.options.CDIDir} {
		if err := checkMounted(dir); err != nil {
			return err
		}
	}
	registrar, err := dial(filepath.Join(d.options.RegistrarDir, d.registrarSocket()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registrar.Close()) }()
	info, err := registerapi.NewRegistrationClient(registrar).GetInfo(ctx, &registerapi.InfoRequest{})
	if err != nil {
		return fmt.Errorf("ask the registration socket: %w", err)
	}
	plugin, err := dial(info.Endpoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plugin.Close()) }()
	if _, err := drapb.NewDRAPluginClient(plugin).NodePrepareResources(ctx, &drapb.NodePrepareResourcesRequest{}); err != nil {
		return fmt.Errorf("ask the plugin socket to prepare no claim: %w", err)
	}
	return nil
}

// checkMounted returns an error if a folder was deleted on the host. A container
// goes on to see the deleted one, where nothing can be made any more; only a new
// container sees a new one.
func checkMounted(dir string) error {
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil // made when it is needed
		}
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if stat.Nlink == 0 {
		return fmt.Errorf("%s was deleted on the host: restart the plugin, so that it sees the new folder", dir)
	}
	return nil
}

// registrarSocket is the name that the helper gives the socket.
func (d *Driver) registrarSocket() string {
	if d.options.PodUID == "" {
		return d.options.DriverName + "-reg.sock"
	}
	return kubeletplugin.RollingUpdateRegistrarSocketFile(d.options.RegistrarDir, d.options.DriverName, d.options.PodUID)
}

// pluginSocket is the name that the helper gives the socket, see Start in its
// draplugin.go.
func (d *Driver) pluginSocket() string {
	if d.options.PodUID == "" {
		return "dra.sock"
	}
	return "dra-" + string(d.options.PodUID) + ".sock"
}

func dial(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", socket, err)
	}
	return conn, nil
}
