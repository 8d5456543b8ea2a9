package config

import (
	"fmt"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/supervisor"
)

// Commands returns the command lines of a role's components.
func Commands(c *Config, s State, role Role) []supervisor.Command {
	if role == ControlPlane {
		return controlPlaneCommands(c, s)
	}
	return nodeCommands(c, s)
}

func controlPlaneCommands(c *Config, s State) []supervisor.Command {
	const etcdURL, peerURL = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	a := c.Addresses()
	pki := func(file string) string { return s.Path("pki", file) }
	kubeconfig := func(component string) string { return s.Path("etc", component+".kubeconfig") }
	commands := []supervisor.Command{
		command(c, Etcd,
			"--name="+c.NodeName, "--data-dir="+s.Path("etcd"),
			"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
			"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL,
			"--initial-cluster="+c.NodeName+"="+peerURL,
			// The data need not outlive the machine.
			"--unsafe-no-fsync"),
		command(c, APIServer,
			"--etcd-servers="+etcdURL,
			"--bind-address=0.0.0.0", fmt.Sprintf("--secure-port=%d", APIPort),
			"--advertise-address="+a.ControlPlane.String(),
			"--service-cluster-ip-range="+ServiceNetwork().String(),
			"--tls-cert-file="+pki(APIServer+".crt"), "--tls-private-key-file="+pki(APIServer+".key"),
			"--client-ca-file="+pki("ca.crt"),
			// For aggregated APIs, and for the components that ask this server who
			// their own clients are.
			"--requestheader-client-ca-file="+pki("ca.crt"), "--requestheader-allowed-names="+frontProxy,
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file="+pki(frontProxy+".crt"), "--proxy-client-key-file="+pki(frontProxy+".key"),
			"--kubelet-certificate-authority="+pki("ca.crt"),
			"--kubelet-client-certificate="+pki("apiserver-kubelet-client.crt"),
			"--kubelet-client-key="+pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file="+pki("sa.pub"), "--service-account-signing-key-file="+pki("sa.key"),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			// Webhooks are called at their pods' addresses: no kube-proxy
			// translates a Service's.
			"--enable-aggregator-routing=true"),
		command(c, ControllerManager,
			"--kubeconfig="+kubeconfig(ControllerManager),
			"--authentication-kubeconfig="+kubeconfig(ControllerManager),
			"--authorization-kubeconfig="+kubeconfig(ControllerManager),
			"--client-ca-file="+pki("ca.crt"), "--bind-address=0.0.0.0", "--leader-elect=false",
			// Its start makes more requests than the default limit allows, which
			// costs five seconds.
			"--kube-api-qps=200", "--kube-api-burst=400",
			"--use-service-account-credentials=true",
			"--service-account-private-key-file="+pki("sa.key"), "--root-ca-file="+pki("ca.crt"),
			"--cluster-signing-cert-file="+pki("ca.crt"), "--cluster-signing-key-file="+pki("ca.key")),
		command(c, Scheduler,
			"--kubeconfig="+kubeconfig(Scheduler),
			"--authentication-kubeconfig="+kubeconfig(Scheduler),
			"--authorization-kubeconfig="+kubeconfig(Scheduler),
			"--client-ca-file="+pki("ca.crt"), "--bind-address=0.0.0.0", "--leader-elect=false"),
	}
	if c.RuntimeConfig != "" {
		commands[1].Args = append(commands[1].Args, "--runtime-config="+c.RuntimeConfig)
	}
	commands[1].Args = append(commands[1].Args, auditArgs(c, s)...)
	for i := range commands {
		if c.FeatureGates != "" && commands[i].Name != Etcd {
			commands[i].Args = append(commands[i].Args, "--feature-gates="+c.FeatureGates)
		}
	}
	return commands
}

func command(c *Config, name string, args ...string) supervisor.Command {
	return supervisor.Command{Name: name, Path: c.Programs[name], Args: args}
}
