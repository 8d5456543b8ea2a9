package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// ipamVersion is the version of the CNI specification that a configuration for
// an IPAM plugin alone is made in: the first with results as they are today.
const ipamVersion = "1.0.0"

// Resolve returns the CNI configuration of a NetworkAttachmentDefinition, ready
// to run, if claims of a namespace may use it. All plugins that it names are on
// the host.
func (n *Networks) Resolve(ctx context.Context, claimNamespace string, ref v1alpha1.NetAttachDef) ([]byte, error) {
	namespace := ref.Namespace
	if namespace == "" {
		namespace = claimNamespace
	}
	name := namespace + "/" + ref.Name
	// The permission comes first, so that nobody learns what there is in a
	// namespace that is not theirs.
	if namespace != claimNamespace {
		if err := n.allowed(ctx, claimNamespace, namespace); err != nil {
			return nil, fmt.Errorf("NetworkAttachmentDefinition %s: %w", name, err)
		}
	}
	definition, err := n.options.Definitions.K8sCniCncfIoV1().NetworkAttachmentDefinitions(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, notRead(name, err)
	}
	config, err := n.config(definition)
	if err != nil {
		return nil, fmt.Errorf("NetworkAttachmentDefinition %s: %w", name, err)
	}
	return config, nil
}

// notRead says why a NetworkAttachmentDefinition could not be read.
func notRead(name string, err error) error {
	switch {
	case noSuchKind(err):
		return fmt.Errorf("NetworkAttachmentDefinition %s: this cluster does not know the kind NetworkAttachmentDefinition: install its CustomResourceDefinition (network-attachment-definitions.k8s.cni.cncf.io), or configure the VF without netAttachDef: %w", name, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("NetworkAttachmentDefinition %s does not exist: create it, or correct netAttachDef in the claim's VfConfig: %w", name, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("NetworkAttachmentDefinition %s: the kubelet plugin may not read it: its ServiceAccount needs the verb get for network-attachment-definitions.k8s.cni.cncf.io: %w", name, err)
	}
	return fmt.Errorf("read NetworkAttachmentDefinition %s: %w", name, err)
}

// noSuchKind tells whether the API server does not serve the resource at all.
// Its answer then is no Status object, which the client notes among the causes.
func noSuchKind(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool {
		return c.Type == metav1.CauseTypeUnexpectedServerResponse
	})
}

// allowed returns an error unless a namespace lets claims of another one use
// its NetworkAttachmentDefinitions.
func (n *Networks) allowed(ctx context.Context, claimNamespace, namespace string) error {
	const annotation = v1alpha1.AllowNetworkAttachmentsFromAnnotation
	ns, err := n.options.Client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read namespace %s, to see whether its annotation %s allows claims of namespace %s: %w", namespace, annotation, claimNamespace, err)
	}
	for who := range strings.SplitSeq(ns.Annotations[annotation], ",") {
		if who = strings.TrimSpace(who); who == "*" || who == claimNamespace {
			return nil
		}
	}
	return fmt.Errorf("namespace %s does not allow claims of namespace %s to use it: add %s to the annotation %s of namespace %s, or use a NetworkAttachmentDefinition of namespace %s",
		namespace, claimNamespace, claimNamespace, annotation, namespace, claimNamespace)
}

// config returns the configuration of a NetworkAttachmentDefinition.
func (n *Networks) config(definition *nadv1.NetworkAttachmentDefinition) ([]byte, error) {
	var list *libcni.NetworkConfigList
	var err error
	if strings.TrimSpace(definition.Spec.Config) == "" {
		list, err = n.fromHost(definition.Name)
		if err != nil {
			return nil, fmt.Errorf("its spec.config is empty, so that the host's configuration of the same name counts: %w", err)
		}
	} else {
		list, err = parse([]byte(definition.Spec.Config), definition.Name)
		if err != nil {
			return nil, fmt.Errorf("spec.config: %w", err)
		}
	}
	if err := n.check(list); err != nil {
		return nil, err
	}
	return encode(list)
}

// parse reads the configuration of one plugin or of a list of plugins. A
// network without a name is given one.
func parse(raw []byte, name string) (*libcni.NetworkConfigList, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("want a JSON object, the configuration of a CNI plugin or of a list of them: %w", err)
	}
	if fields == nil {
		return nil, errors.New("want a JSON object, the configuration of a CNI plugin or of a list of them, not null")
	}
	var given string
	if err := json.Unmarshal(fields["name"], &given); fields["name"] != nil && err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	if given == "" {
		encoded, err := json.Marshal(name)
		if err != nil {
			return nil, fmt.Errorf("encode the name %q: %w", name, err)
		}
		fields["name"] = encoded
		if raw, err = json.Marshal(fields); err != nil {
			return nil, fmt.Errorf("encode with the name %q: %w", name, err)
		}
	}
	if _, isList := fields["plugins"]; isList {
		list, err := libcni.NetworkConfFromBytes(raw)
		if err != nil {
			return nil, fmt.Errorf("it has \"plugins\", so it is read as a list of plugins: %w", err)
		}
		return list, nil
	}
	one, err := libcni.NetworkPluginConfFromBytes(raw)
	if err != nil {
		return nil, fmt.Errorf("it has no \"plugins\", so it is read as a single plugin: %w", err)
	}
	return &libcni.NetworkConfigList{Name: one.Network.Name, CNIVersion: one.Network.CNIVersion, Plugins: []*libcni.PluginConfig{one}}, nil
}

// fromHost returns the configuration of a network from the host's folder. Files
// that cannot be read belong to others and count only if nothing is found.
func (n *Networks) fromHost(name string) (*libcni.NetworkConfigList, error) {
	dir := n.options.ConfDir
	var found *libcni.NetworkConfigList
	var broken []error
	err := n.options.Host.look(func() error {
		files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
		if err != nil {
			return fmt.Errorf("read folder %s on the host: %w", dir, err)
		}
		slices.Sort(files)
		for _, file := range files {
			list, err := fromFile(file)
			switch {
			case err != nil:
				broken = append(broken, fmt.Errorf("%s: %w", file, err))
			case list.Name == name:
				found = list
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, errors.Join(append([]error{fmt.Errorf("no file in %s on the host has a configuration with the name %q: put one there, or fill in spec.config", dir, name)}, broken...)...)
	}
	return found, nil
}

// check returns an error if a configuration cannot work on this host.
func (n *Networks) check(list *libcni.NetworkConfigList) error {
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return fmt.Errorf("its network's name %q: %w", list.Name, err)
	}
	newer, err := version.GreaterThan(list.CNIVersion, version.Current())
	if err != nil {
		return fmt.Errorf("its cniVersion %q: %w", list.CNIVersion, err)
	}
	if newer {
		return fmt.Errorf("its cniVersion is %s: this driver knows versions up to %s", list.CNIVersion, version.Current())
	}
	if len(list.Plugins) == 0 {
		return errors.New("it has no plugins")
	}
	for _, plugin := range list.Plugins {
		if _, err := n.executor.FindInPath(plugin.Network.Type, n.options.BinDirs); err != nil {
			return err
		}
		if plugin.Network.IPAM.Type == "" {
			continue
		}
		if _, err := n.executor.FindInPath(plugin.Network.IPAM.Type, n.options.BinDirs); err != nil {
			return fmt.Errorf("the \"ipam\" of plugin %s: %w", plugin.Network.Type, err)
		}
	}
	return nil
}

// encode writes a configuration as it is stored, with nothing that still has to
// be looked up.
func encode(list *libcni.NetworkConfigList) ([]byte, error) {
	stored := struct {
		CNIVersion string            `json:"cniVersion,omitempty"`
		Name       string            `json:"name"`
		Plugins    []json.RawMessage `json:"plugins"`
	}{CNIVersion: list.CNIVersion, Name: list.Name}
	for _, plugin := range list.Plugins {
		stored.Plugins = append(stored.Plugins, plugin.Bytes)
	}
	raw, err := json.Marshal(stored)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of network %q: %w", list.Name, err)
	}
	return raw, nil
}

// fromFile reads a configuration file of the host.
func fromFile(path string) (*libcni.NetworkConfigList, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(path, ".conflist") {
		return parse(raw, "")
	}
	// libcni also knows lists whose plugins lie in files of their own.
	return libcni.NetworkConfFromFile(path)
}
