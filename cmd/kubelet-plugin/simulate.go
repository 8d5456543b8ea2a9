package main

import (
	"context"
	"fmt"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
)

// simulation is a simulated machine and where its files are. They lie in the
// driver's data folder, which has the same path on the host, so that the
// container runtime finds them there.
type simulation struct {
	*simulated.Machine
	sysfs, driverRoot string
	// nics is for what the NICs' firmware remembers.
	nics string
}

// simulatedMachine makes the files of the simulated machine. It is nil where
// this machine's hardware is to be served.
func (o *options) simulatedMachine(ctx context.Context) (*simulation, error) {
	if o.simulate == "" {
		return nil, nil
	}
	model, err := simulated.ParseModel(o.simulate)
	if err != nil {
		return nil, fmt.Errorf("--simulate: %w", err)
	}
	root := filepath.Join(o.dataDir(), "simulated")
	s := &simulation{
		Machine:    simulated.New(model, o.nodeName),
		sysfs:      filepath.Join(root, "sys"),
		driverRoot: filepath.Join(root, "driver"),
		nics:       filepath.Join(root, "nics"),
	}
	// Its VFs are virtual Ethernet interfaces.
	s.Ethernet = true
	if err := s.WriteSysfs(s.sysfs); err != nil {
		return nil, fmt.Errorf("--simulate %s: %w", o.simulate, err)
	}
	if err := s.WriteDriverRoot(s.driverRoot); err != nil {
		return nil, fmt.Errorf("--simulate %s: %w", o.simulate, err)
	}
	klog.FromContext(ctx).Info("This machine's hardware is not looked at: serving a simulated one", "model", o.simulate)
	return s, nil
}
