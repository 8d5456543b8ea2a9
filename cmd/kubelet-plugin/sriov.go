package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	nadclient "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/client/clientset/versioned"
	"k8s.io/client-go/rest"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nickernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/cni"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// attachHook is the name of the program that attaches devices to containers
// that start. It lies beside this one in the image.
const attachHook = "attach-hook"

// attachHookPath is where the program is installed. Containers that were made
// by an earlier version look for it there.
func (o *options) attachHookPath() string {
	return filepath.Join(o.dataDir(), "bin", attachHook)
}

// sriovFamily returns the virtual functions of this machine, or of the
// simulated one.
func (o *options) sriovFamily(ctx context.Context, n node, machine *simulation) (*sriov.Family, error) {
	if err := installBeside(o.attachHookPath()); err != nil {
		return nil, err
	}
	config, err := o.nodeConfig()
	if err != nil {
		return nil, err
	}
	host, err := kernel.New(o.netns())
	if err != nil {
		return nil, fmt.Errorf("%w: see that --host-root is where the host's / is mounted, or set --host-netns", err)
	}
	addresses, err := o.addresses()
	if err != nil {
		return nil, err
	}
	networks, err := o.networks(n)
	if err != nil {
		return nil, err
	}
	settings := sriov.Options{
		SysfsRoot:     o.servedSysfs(),
		DevRoot:       filepath.Join(o.hostRoot, "dev"),
		HostRoot:      o.hostRoot,
		DataDir:       o.dataDir(),
		BootID:        n.bootID,
		Kernel:        host,
		Config:        config.SRIOV,
		Networks:      networks,
		NodeAddresses: addresses,
	}
	if machine != nil && machine.whole {
		settings.DevRoot = filepath.Join(machine.driverRoot, "dev")
		settings.HostDevRoot = settings.DevRoot
		if settings.Kernel, err = o.simulatedKernel(ctx, n, machine, host); err != nil {
			return nil, fmt.Errorf("--simulate %s: %w", o.simulate, err)
		}
	}
	return sriov.New(settings), nil
}

// simulatedKernel makes the simulated machine's NICs, and looks after them as
// long as the plugin runs.
func (o *options) simulatedKernel(ctx context.Context, n node, machine *simulation, host kernel.Kernel) (kernel.Kernel, error) {
	// Made before the interfaces, so that whoever removes them knows of them.
	if err := os.MkdirAll(machine.nics, 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of the simulated NICs: %w", err)
	}
	simulated, err := nickernel.New(ctx, nickernel.Options{
		Real: host, HostNetns: o.netns(), NICs: machine.NICs(), Dir: machine.nics, BootID: n.bootID,
	})
	if err != nil {
		return nil, err
	}
	go simulated.Keep(ctx)
	return simulated, nil
}

// networks runs the CNI plugins that claims ask for, as the host would.
func (o *options) networks(n node) (*cni.Networks, error) {
	definitions := rest.CopyConfig(n.config)
	// A custom resource is served in JSON only.
	definitions.ContentType, definitions.AcceptContentTypes = "application/json", "application/json"
	client, err := nadclient.NewForConfig(definitions)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server for NetworkAttachmentDefinitions: %w", err)
	}
	return cni.New(cni.Options{
		Host:        cni.Host{Root: o.hostRoot, Netns: o.netns()},
		BinDirs:     o.cniBinDirs,
		ConfDir:     o.cniConfDir,
		CacheDir:    filepath.Join(o.dataDir(), "cni"),
		Client:      n.client,
		Definitions: client,
	}), nil
}

// nodeConfig reads the configuration file, if there is one.
func (o *options) nodeConfig() (*v1alpha1.NodeConfig, error) {
	if o.config == "" {
		return &v1alpha1.NodeConfig{}, nil
	}
	raw, err := os.ReadFile(o.config)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	config, err := v1alpha1.DecodeNodeConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("--config %s: %w", o.config, err)
	}
	return config, nil
}
