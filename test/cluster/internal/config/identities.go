package config

import (
	"fmt"
	"net"
	"os"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/pki"
)

// frontProxy is the identity of the API server towards aggregated APIs.
const frontProxy = "front-proxy-client"

// WriteIdentities makes the cluster's certificates, keys and kubeconfigs.
func WriteIdentities(c *Config, s State) error {
	a := c.Addresses()
	authority, err := pki.NewAuthority(s.Path("pki"), "eks-hybrid-dra test cluster "+c.Name)
	if err != nil {
		return err
	}
	for _, id := range append(identities(c), nodeIdentities(c.NodeName, a.Node)...) {
		if err := authority.Issue(id); err != nil {
			return err
		}
	}
	if err := authority.ServiceAccountKey(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.Path("etc"), 0o700); err != nil {
		return fmt.Errorf("make the folder of the configuration: %w", err)
	}
	if err := writeAuditPolicy(c, s); err != nil {
		return err
	}
	inside := fmt.Sprintf("https://%s:%d", a.ControlPlane, APIPort)
	for _, component := range []string{ControllerManager, Scheduler, Kubelet} {
		if err := authority.Kubeconfig(s.Path("etc", component+".kubeconfig"), c.Name, inside, component); err != nil {
			return err
		}
	}
	outside := fmt.Sprintf("https://%s:%d", a.API, APIPort)
	return authority.Kubeconfig(s.Kubeconfig(), c.Name, outside, "admin")
}

// identities uses the names and groups that Kubernetes' bootstrap RBAC policy
// and its Node authorizer know.
func identities(c *Config) []pki.Identity {
	a := c.Addresses()
	return []pki.Identity{
		{File: "admin", Name: "kubernetes-admin", Groups: []string{"system:masters"}},
		{File: APIServer, Name: "kube-apiserver",
			DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			IPs: []net.IP{net.IPv4(127, 0, 0, 1), a.API.AsSlice(), a.ControlPlane.AsSlice(),
				KubernetesService().AsSlice()}},
		{File: "apiserver-kubelet-client", Name: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		{File: frontProxy, Name: frontProxy},
		{File: ControllerManager, Name: "system:kube-controller-manager"},
		{File: Scheduler, Name: "system:kube-scheduler"},
	}
}
