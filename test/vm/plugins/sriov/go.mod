// sriov-cni, which test/guest has Multus move VFs with. It is a module of its own
// because it needs CNI libraries of its time. 2.1.0 is the last release that can be
// had as a Go module under its tag: later ones have a go.mod, whose path lacks the
// major version. Its path there is the one that its own imports name.
module github.com/eks-hybrid-dra/eks-hybrid-dra/test/vm/plugins/sriov

go 1.26.6

tool github.com/intel/sriov-cni/cmd/sriov

require (
	github.com/containernetworking/cni v0.6.0 // indirect
	github.com/containernetworking/plugins v0.7.4 // indirect
	github.com/coreos/go-iptables v0.8.0 // indirect
	github.com/intel/sriov-cni v2.1.0+incompatible // indirect
	github.com/vishvananda/netlink v1.0.0 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	golang.org/x/sys v0.35.0 // indirect
)
