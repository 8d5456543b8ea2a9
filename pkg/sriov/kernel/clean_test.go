package kernel

import (
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a pod does to an interface stays on it when it is moved.
func TestClean(t *testing.T) {
	k, _ := newKernel(t)
	pod, _ := openNamespace(t, k)
	addVeth(t, k.Host(), "vf0", "peer")
	host := k.host.handle
	vf0, err := host.LinkByName("vf0")
	must(t, err)
	must(t, host.LinkAddAltName(vf0, "enp24s0f0v0"))
	fresh := vf0.Attrs().RawFlags
	must(t, k.Host().Move(vf0.Attrs().Index, pod))

	index := find(t, pod, "vf0").Index
	inPod, ok := pod.(*namespace)
	if !ok {
		t.Fatalf("%T is no namespace of ours", pod)
	}
	link := byIndex(index)
	must(t, inPod.handle.SetPromiscOn(link))
	must(t, inPod.handle.LinkSetAllmulticastOn(link))
	must(t, inPod.handle.LinkSetARPOff(link))
	must(t, inPod.handle.LinkSetMulticastOff(link))
	must(t, inPod.handle.LinkAddAltName(link, "net1"))
	attachXDP(t, inPod, index)

	must(t, pod.Move(index, k.Host()))
	dirty := find(t, k.Host(), "vf0")
	if names := slices.Sorted(slices.Values(dirty.AltNames)); !slices.Equal(names, []string{"enp24s0f0v0", "net1"}) {
		t.Fatalf("the interface has come with the further names %v", names)
	}
	for range 2 { // the second time there is nothing to do
		must(t, k.Host().Clean(dirty.Index, []string{"enp24s0f0v0", "another"}))
	}
	left, err := host.LinkByName("vf0")
	must(t, err)
	if names := left.Attrs().AltNames; !slices.Equal(names, []string{"enp24s0f0v0"}) {
		t.Errorf("the interface has the further names %v", names)
	}
	if flags := left.Attrs().RawFlags; flags != fresh {
		t.Errorf("the interface has the flags %#x, and had %#x", flags, fresh)
	}
	if left.Attrs().Xdp.Attached {
		t.Error("the interface still has an XDP program")
	}
	if err := k.Host().Clean(4711, nil); err == nil {
		t.Error("an interface that is not there was cleaned")
	}
}

// attachXDP attaches a program that passes all packets, and stays when whoever
// has attached it ends.
func attachXDP(t *testing.T, n *namespace, index int) {
	t.Helper()
	// r0 = XDP_PASS; exit
	code := []uint64{0xb7 | 2<<32, 0x95}
	license := []byte("Apache-2.0\x00")
	attributes := struct {
		kind, count   uint32
		code, license uint64
		rest          [8]uint64
	}{
		kind: unix.BPF_PROG_TYPE_XDP, count: uint32(len(code)),
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if errno != 0 {
		t.Logf("this kernel loads no XDP program, so none is taken away: %v", errno)
		return
	}
	must(t, within(n.file, func() error { return netlink.LinkSetXdpFdWithFlags(byIndex(index), int(fd), xdpGeneric) }))
	must(t, unix.Close(int(fd)))
}
