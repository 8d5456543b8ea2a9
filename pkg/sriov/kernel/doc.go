// Package kernel is what the SR-IOV family asks of the kernel over netlink, in
// the host's network namespace and in those of pods: network interfaces, the
// settings of VFs, addresses and routes, RDMA devices.
//
// It is one of the two seams at which hardware can be replaced by a
// simulation; the other one is the sysfs tree. It knows interfaces by their
// index and the PCI function behind them, never by their name alone.
//
// [Netlink] is the real one. Its sockets are opened in the namespace that they
// speak to and stay there, so that no thread has to change its own. Where Linux
// is too old to tell the PCI function over netlink, the drivers are asked for
// it, as ethtool does.
package kernel
