// Package guest holds the tests of a whole node with real SR-IOV: kubelet,
// containerd and the driver run in a QEMU guest (test/vm), whose network cards
// have VFs of the kernel's own drivers; the control plane runs outside.
//
// One cluster and one boot of the guest serve all tests, which run one after
// the other. Run them with `make test-guest`, or for one test
//
//	go test ./test/guest -run TestName -v
//
// GUEST_KEEP=1 leaves cluster and guest up, so that the next run starts at once.
// GUEST_CLUSTER names them, so that two runs on one machine do not share theirs.
package guest
