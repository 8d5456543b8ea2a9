package config

// Role is one of the two sets of namespaces of a cluster.
type Role string

// The roles.
const (
	ControlPlane Role = "control-plane"
	Node         Role = "node"
)

// Roles returns all roles, in the order in which they start.
func Roles() []Role { return []Role{ControlPlane, Node} }

// Component names, which are also the names of log files.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Containerd        = "containerd"
	Kubelet           = "kubelet"
)

// RoleOf returns the role that a component belongs to.
func RoleOf(component string) (Role, bool) {
	switch component {
	case Etcd, APIServer, ControllerManager, Scheduler:
		return ControlPlane, true
	case Containerd, Kubelet:
		return Node, true
	}
	return "", false
}

// Components returns the names of all components.
func Components() []string {
	return []string{Etcd, APIServer, ControllerManager, Scheduler, Containerd, Kubelet}
}
