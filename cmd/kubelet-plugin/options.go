package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
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
	// simulateGPUsAt are PCI addresses.
	simulateGPUsAt []string
	httpAddress    string
	config         string
	enableGPU      bool
	enableSRIOV    bool
	hostNetns      string
	cniBinDirs     []string
	cniConfDir     string
	attachWait     time.Duration
	// nodeAddresses are IP addresses, separated by commas.
	nodeAddresses string
}

func defaultOptions() *options {
	return &options{
		driverName:    "eks-hybrid-dra",
		nodeName:      os.Getenv("NODE_NAME"),
		podUID:        os.Getenv("POD_UID"),
		kubeletRoot:   "/var/lib/kubelet",
		cdiRoot:       "/var/run/cdi",
		hostRoot:      "/",
		httpAddress:   ":9464",
		enableGPU:     true,
		cniBinDirs:    []string{"/opt/cni/bin"},
		cniConfDir:    "/etc/cni/net.d",
		attachWait:    time.Minute,
		nodeAddresses: os.Getenv("NODE_ADDRESSES"),
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
	flags.StringVar(&o.sysfsRoot, "sysfs-root", o.sysfsRoot, "the host's sysfs as it is mounted in the host's network namespace; empty: sys below --host-root")
	flags.StringVar(&o.simulate, "simulate", o.simulate, "serve a simulated machine instead of this one's hardware: dgx-h100 or dgx-h200")
	flags.StringSliceVar(&o.simulateGPUsAt, "simulate-gpus-at", o.simulateGPUsAt, "simulate only the GPUs of the machine that --simulate names, each in the place of the PCI function of this machine that has one of these addresses; everything else is this machine's hardware")
	flags.StringVar(&o.httpAddress, "http-address", o.httpAddress, "address that serves /metrics, /healthz and /readyz; empty: none")
	flags.StringVar(&o.config, "config", o.config, "configuration file, of kind NodeConfig; empty: all defaults")
	flags.BoolVar(&o.enableGPU, "enable-gpu", o.enableGPU, "serve this machine's GPUs")
	flags.BoolVar(&o.enableSRIOV, "enable-sriov", o.enableSRIOV, "serve this machine's SR-IOV virtual functions")
	flags.StringVar(&o.hostNetns, "host-netns", o.hostNetns, "the host's network namespace; empty: proc/1/ns/net below --host-root")
	flags.StringVar(&o.nodeAddresses, "node-addresses", o.nodeAddresses, "IP addresses of this node in the cluster, separated by commas: the NIC that has one is left alone unless --config names it (default: $NODE_ADDRESSES)")
	flags.StringArrayVar(&o.cniBinDirs, "cni-bin-dir", o.cniBinDirs, "folder of the host with its CNI plugins; may be repeated, the first that has a plugin wins")
	flags.StringVar(&o.cniConfDir, "cni-conf-dir", o.cniConfDir, "folder of the host with its CNI configurations")
	flags.DurationVar(&o.attachWait, "attach-wait", o.attachWait, "how long a container that starts waits for this plugin to attach its virtual functions, before it fails")
}

// validate names every flag with a wrong value.
func (o *options) validate() error {
	var c program.Checks
	c.Check("driver-name", o.driverName, validation.IsDNS1123Subdomain(o.driverName)...)
	c.Given("node-name", o.nodeName, "set it, or NODE_NAME, to the name of this node in the cluster")
	o.checkPaths(&c)
	o.checkSimulation(&c)
	_, err := o.addresses()
	c.Add(err)
	if !o.enableGPU && !o.enableSRIOV {
		c.Add(errors.New("--enable-gpu and --enable-sriov are both false: nothing is left to serve"))
	}
	c.Want(o.attachWait >= time.Second, "attach-wait", o.attachWait, "at least 1s")
	return c.Err()
}

func (o *options) checkSimulation(c *program.Checks) {
	if o.simulate != "" {
		if _, err := simulated.ParseModel(o.simulate); err != nil {
			c.Add(fmt.Errorf("--simulate: %w", err))
		}
	}
	if len(o.simulateGPUsAt) == 0 {
		return
	}
	_, err := o.gpuPlaces()
	c.Add(err)
	if o.simulate == "" {
		c.Add(errors.New("--simulate-gpus-at without --simulate: say there which machine's GPUs these are"))
	}
	if !o.enableGPU {
		c.Add(errors.New("--simulate-gpus-at with --enable-gpu=false: no GPU would be served"))
	}
}

// checkPaths is for paths that must be absolute, and those that may also be left
// out.
func (o *options) checkPaths(c *program.Checks) {
	c.Absolute("kubelet-root", o.kubeletRoot)
	c.Absolute("cdi-root", o.cdiRoot)
	c.Absolute("host-root", o.hostRoot)
	c.Absolute("cni-conf-dir", o.cniConfDir)
	c.AbsoluteIfGiven("sysfs-root", o.sysfsRoot)
	c.AbsoluteIfGiven("driver-root", o.driverRoot)
	c.AbsoluteIfGiven("config", o.config)
	c.AbsoluteIfGiven("host-netns", o.hostNetns)
	for _, dir := range o.cniBinDirs {
		c.Want(filepath.IsAbs(dir), "cni-bin-dir", dir, "an absolute path on the host")
	}
}

// addresses are those of the node in the cluster.
func (o *options) addresses() ([]netip.Addr, error) {
	var addresses []netip.Addr
	for text := range strings.SplitSeq(o.nodeAddresses, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("--node-addresses %q: %w", o.nodeAddresses, err)
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// gpuPlaces are the PCI functions in whose places simulated GPUs are. There are
// none where the whole machine is simulated, or nothing.
func (o *options) gpuPlaces() ([]topology.Address, error) {
	var places []topology.Address
	for _, text := range o.simulateGPUsAt {
		address, err := topology.ParseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("--simulate-gpus-at: %w", err)
		}
		places = append(places, address)
	}
	return places, nil
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

// servedSysfs shows the machine whose devices are served: this one, or one that
// is simulated as a whole.
func (o *options) servedSysfs() string {
	if o.simulate != "" && len(o.simulateGPUsAt) == 0 {
		return filepath.Join(o.simulationDir(), "sys")
	}
	return o.sysfs()
}

// simulationDir is for what a simulated machine needs. It has the same path on
// the host, so that the container runtime finds the files there.
func (o *options) simulationDir() string { return filepath.Join(o.dataDir(), "simulated") }

// sysfs is the host's: a sysfs shows the interfaces of the network namespace
// in which it was mounted, and this process may have one of its own.
func (o *options) sysfs() string {
	return cmp.Or(o.sysfsRoot, filepath.Join(o.hostRoot, "sys"))
}

// netns is the host's network namespace: that of its first process.
func (o *options) netns() string {
	return cmp.Or(o.hostNetns, filepath.Join(o.hostRoot, "proc/1/ns/net"))
}
