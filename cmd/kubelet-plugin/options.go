package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
)

type options struct {
	driverName  string
	nodeName    string
	podUID      string
	kubeconfig  string
	kubeletRoot string
	cdiRoot     string
	hostRoot    string
	driverRoot  string
	sysfsRoot   string
	simulate    string
	httpAddress string
}

func defaultOptions() *options {
	return &options{
		driverName:  "eks-hybrid-dra",
		nodeName:    os.Getenv("NODE_NAME"),
		podUID:      os.Getenv("POD_UID"),
		kubeletRoot: "/var/lib/kubelet",
		cdiRoot:     "/var/run/cdi",
		hostRoot:    "/",
		sysfsRoot:   "/sys",
		httpAddress: ":9464",
	}
}

func (o *options) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.driverName, "driver-name", o.driverName, "name of the DRA driver: device classes, pools and attributes follow it")
	flags.StringVar(&o.nodeName, "node-name", o.nodeName, "name of this node in the cluster (default: $NODE_NAME)")
	flags.StringVar(&o.podUID, "pod-uid", o.podUID, "UID of the pod that this runs in, so that an update can start the next pod before this one stops; empty outside a pod (default: $POD_UID)")
	flags.StringVar(&o.kubeconfig, "kubeconfig", o.kubeconfig, "kubeconfig file; empty: the pod's service account")
	flags.StringVar(&o.kubeletRoot, "kubelet-root", o.kubeletRoot, "kubelet's root folder, the same path on the host and here")
	flags.StringVar(&o.cdiRoot, "cdi-root", o.cdiRoot, "folder in which the container runtime finds CDI specs, the same path on the host and here")
	flags.StringVar(&o.hostRoot, "host-root", o.hostRoot, "where the host's / is mounted here")
	flags.StringVar(&o.driverRoot, "driver-root", o.driverRoot, "root of the NVIDIA driver on the host; empty: looked for in / and /run/nvidia/driver")
	flags.StringVar(&o.sysfsRoot, "sysfs-root", o.sysfsRoot, "the host's sysfs")
	flags.StringVar(&o.simulate, "simulate", o.simulate, "serve a simulated machine instead of this one's hardware: dgx-h100 or dgx-h200")
	flags.StringVar(&o.httpAddress, "http-address", o.httpAddress, "address that serves /metrics, /healthz and /readyz; empty: none")
}

// validate names every flag with a wrong value.
func (o *options) validate() error {
	var errs []error
	if problems := validation.IsDNS1123Subdomain(o.driverName); len(problems) > 0 {
		errs = append(errs, fmt.Errorf("--driver-name %q: %s", o.driverName, strings.Join(problems, "; ")))
	}
	if o.nodeName == "" {
		errs = append(errs, errors.New("--node-name is empty: set it, or NODE_NAME, to the name of this node in the cluster"))
	}
	for flag, path := range map[string]string{
		"--kubelet-root": o.kubeletRoot, "--cdi-root": o.cdiRoot, "--host-root": o.hostRoot, "--sysfs-root": o.sysfsRoot,
	} {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%s %q: want an absolute path", flag, path))
		}
	}
	if o.driverRoot != "" && !filepath.IsAbs(o.driverRoot) {
		errs = append(errs, fmt.Errorf("--driver-root %q: want an absolute path on the host, or nothing", o.driverRoot))
	}
	if o.simulate != "" {
		if _, err := simulated.ParseModel(o.simulate); err != nil {
			errs = append(errs, fmt.Errorf("--simulate: %w", err))
		}
	}
	return errors.Join(errs...)
}

// dataDir is the driver's folder, in which kubelet finds its socket.
func (o *options) dataDir() string {
	return filepath.Join(o.kubeletRoot, "plugins", o.driverName)
}

func (o *options) registrarDir() string {
	return filepath.Join(o.kubeletRoot, "plugins_registry")
}

// bootIDPath and procfs are the host's, not those of a container.
func (o *options) bootIDPath() string {
	return filepath.Join(o.hostRoot, "proc/sys/kernel/random/boot_id")
}

func (o *options) procfs() string { return filepath.Join(o.hostRoot, "proc") }
