package main

import (
	"context"
	"fmt"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// simulation is a simulated machine and where its files are.
type simulation struct {
	*simulated.Machine
	// whole says that not only the GPUs are simulated.
	whole      bool
	driverRoot string
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
	s := &simulation{
		driverRoot: filepath.Join(o.simulationDir(), "driver"),
		nics:       o.simulatedNICs(),
	}
	if len(o.simulateGPUsAt) > 0 {
		err = o.simulateGPUs(ctx, s, model)
	} else {
		err = o.simulateAll(ctx, s, model)
	}
	if err != nil {
		return nil, err
	}
	if err := s.WriteDriverRoot(s.driverRoot); err != nil {
		return nil, fmt.Errorf("--simulate %s: %w", o.simulate, err)
	}
	return s, nil
}

// simulatedNICs is a folder that is there if the machine's NICs have been
// simulated.
func (o *options) simulatedNICs() string { return filepath.Join(o.simulationDir(), "nics") }

func (o *options) simulateAll(ctx context.Context, s *simulation, model simulated.Model) error {
	s.whole, s.Machine = true, simulated.New(model, o.nodeName)
	// Its VFs are virtual Ethernet interfaces.
	s.Ethernet = true
	if err := s.WriteSysfs(o.servedSysfs()); err != nil {
		return fmt.Errorf("--simulate %s: %w", o.simulate, err)
	}
	klog.FromContext(ctx).Info("This machine's hardware is not looked at: serving a simulated one", "model", o.simulate)
	return nil
}

// simulateGPUs puts simulated GPUs into this machine.
func (o *options) simulateGPUs(ctx context.Context, s *simulation, model simulated.Model) error {
	places, err := o.gpuPlaces()
	if err != nil {
		return err
	}
	if s.Machine, err = simulated.NewAt(model, o.nodeName, topology.At(o.servedSysfs()), places); err != nil {
		return fmt.Errorf("--simulate-gpus-at: %w", err)
	}
	klog.FromContext(ctx).Info("Serving simulated GPUs in the places of PCI functions of this machine", "model", o.simulate, "places", o.simulateGPUsAt)
	return nil
}
