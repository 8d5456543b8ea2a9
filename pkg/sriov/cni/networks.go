package cni

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	nadclient "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/client/clientset/versioned"
	"k8s.io/client-go/kubernetes"
)

// cleanUpTime is for how long what an addition that failed has left may be
// deleted, on top of the time that the addition itself had. Whoever added
// deletes again what is left then.
const cleanUpTime = 5 * time.Second

// Options say where things are.
type Options struct {
	Host Host
	// BinDirs are the folders of the host with its CNI plugins. A plugin is
	// taken from the first that has it.
	BinDirs []string
	// ConfDir is the folder of the host with its CNI configurations.
	ConfDir string
	// CacheDir is a folder of this driver's own, as this process sees it, for
	// the results of what was added.
	CacheDir string
	// Client reads Namespaces, and Definitions
	// NetworkAttachmentDefinitions.
	Client      kubernetes.Interface
	Definitions nadclient.Interface
}

// Networks resolves and runs CNI configurations. It is safe for concurrent use
// and remembers nothing that is not on disk.
type Networks struct {
	options  Options
	executor *executor
	cni      *libcni.CNIConfig
}

// New returns Networks. It looks at nothing yet.
func New(options Options) *Networks {
	e := &executor{host: &options.Host}
	return &Networks{
		options:  options,
		executor: e,
		cni:      libcni.NewCNIConfigWithCacheDir(options.BinDirs, options.CacheDir, e),
	}
}

// Add runs the plugins of a configuration, which [Networks.Resolve] or
// [Networks.ResolveIPAM] has returned, for a pod. What fails leaves nothing
// behind, as far as the plugins can undo it; the error then says both. An
// attachment that may have been added before must be deleted first.
//
// When ctx ends, the running plugin is killed. Undoing may take some seconds
// more.
func (n *Networks) Add(ctx context.Context, config []byte, call Call) (Result, error) {
	list, err := prepare(config, call)
	if err != nil {
		return Result{}, err
	}
	var result Result
	answer, err := n.cni.AddNetworkList(ctx, list, runtimeConf(call))
	if err == nil {
		result, err = read(answer, call.IfName, ipamOnly(list))
	}
	if err == nil {
		return result, nil
	}
	err = fmt.Errorf("CNI network %q: add interface %s to pod %s: %w", list.Name, call.IfName, call.Pod, err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if undo := n.Del(ctx, config, call); undo != nil {
		err = errors.Join(err, fmt.Errorf("and undoing it failed: %w", undo))
	}
	return Result{}, err
}

// Del undoes Add with the same configuration and call. Repeating it is fine,
// and so is a network namespace or a cached result that is gone.
func (n *Networks) Del(ctx context.Context, config []byte, call Call) error {
	list, err := prepare(config, call)
	if err != nil {
		return err
	}
	fail := func(err error) error {
		return fmt.Errorf("CNI network %q: delete interface %s of pod %s: %w", list.Name, call.IfName, call.Pod, err)
	}
	alive, err := n.options.Host.netnsAlive(call.NetnsPath)
	if err != nil {
		return fail(err)
	}
	conf := runtimeConf(call)
	if !alive {
		// No path is how the CNI specification says that the namespace is
		// gone. Plugins fail at a path that leads nowhere.
		conf.NetNS = ""
	}
	if err := n.cni.DelNetworkList(ctx, list, conf); err != nil {
		return fail(err)
	}
	if alive {
		return nil
	}
	// Without a namespace some plugins, such as host-device, return before
	// they give their addresses back.
	if err := n.delAddresses(ctx, list, conf); err != nil {
		return fail(fmt.Errorf("give back its addresses: %w", err))
	}
	return nil
}

// delAddresses runs the deletion of every IPAM plugin that the plugins of a
// list use. To do so twice is fine, says the CNI specification.
func (n *Networks) delAddresses(ctx context.Context, list *libcni.NetworkConfigList, conf *libcni.RuntimeConf) error {
	var errs []error
	for _, plugin := range slices.Backward(list.Plugins) {
		ipam := plugin.Network.IPAM.Type
		if ipam == "" || ipam == plugin.Network.Type {
			continue
		}
		// The plugin's configuration, run by its IPAM plugin: that is how
		// plugins delegate.
		network := *plugin.Network
		network.Type = ipam
		one := *list
		one.Plugins = []*libcni.PluginConfig{{Network: &network, Bytes: plugin.Bytes}}
		errs = append(errs, n.cni.DelNetworkList(ctx, &one, conf))
	}
	return errors.Join(errs...)
}

// runtimeConf returns what libcni is told about a call.
func runtimeConf(call Call) *libcni.RuntimeConf {
	conf := &libcni.RuntimeConf{
		ContainerID: call.ContainerID,
		NetNS:       call.NetnsPath,
		IfName:      call.IfName,
		Args: [][2]string{
			{"IgnoreUnknown", "true"},
			{"K8S_POD_NAMESPACE", call.Pod.Namespace},
			{"K8S_POD_NAME", call.Pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", call.ContainerID},
			{"K8S_POD_UID", string(call.Pod.UID)},
		},
		// Only plugins that declare a capability are given its argument.
		CapabilityArgs: map[string]any{"deviceID": call.DeviceID},
	}
	if call.MAC != "" {
		conf.CapabilityArgs["mac"] = call.MAC
		conf.Args = append(conf.Args, [2]string{"MAC", call.MAC})
	}
	return conf
}

// prepare reads a stored configuration and gives its first plugin the VF, in
// the two keys that Multus uses.
func prepare(config []byte, call Call) (*libcni.NetworkConfigList, error) {
	if err := utils.ValidateContainerID(call.ContainerID); err != nil {
		return nil, fmt.Errorf("sandbox ID of pod %s: %w", call.Pod, err)
	}
	if err := utils.ValidateInterfaceName(call.IfName); err != nil {
		return nil, fmt.Errorf("interface name for pod %s: %w", call.Pod, err)
	}
	list, err := libcni.NetworkConfFromBytes(config)
	if err != nil {
		return nil, fmt.Errorf("read the stored CNI configuration: %w", err)
	}
	if len(list.Plugins) == 0 {
		return nil, errors.New("read the stored CNI configuration: it has no plugins")
	}
	if call.DeviceID == "" || ipamOnly(list) {
		return list, nil
	}
	list.Plugins[0], err = libcni.InjectConf(list.Plugins[0], map[string]any{"deviceID": call.DeviceID, "pciBusID": call.DeviceID})
	if err != nil {
		return nil, fmt.Errorf("put device %s into the stored CNI configuration: %w", call.DeviceID, err)
	}
	return list, nil
}

// ipamOnly tells whether a configuration is one of [Networks.ResolveIPAM]: its
// plugin is the IPAM plugin itself.
func ipamOnly(list *libcni.NetworkConfigList) bool {
	return len(list.Plugins) == 1 && list.Plugins[0].Network.Type == list.Plugins[0].Network.IPAM.Type
}
