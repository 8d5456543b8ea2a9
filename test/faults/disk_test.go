package faults

import (
	"os"
	"path/filepath"
	"testing"
)

// mustFailToPrepare has a preparation fail, with an error that says everything
// in want, and leave nothing.
func (p *plugin) mustFailToPrepare(c claim, want ...string) {
	p.t.Helper()
	before := p.node.left()
	mustSay(p.t, p.prepareUnchecked(c), append(want, c.String())...)
	if after := p.node.left(); len(after) != len(before) {
		p.t.Fatalf("a failed preparation left files:\nbefore %v\nafter  %v", before, after)
	}
}

// Kubelet's disk is full: what is prepared can be given back, nothing new can
// be prepared, and it all works again once there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	plugins := filepath.Join(n.dir, "plugins")
	n.mount("faults", plugins, "tmpfs", 0, "size=96m")
	before, during := n.newClaim("gpu-0"), n.newClaim("gpu-1")
	p := n.start()
	p.mustPrepare(before)
	free := fill(t, plugins)

	p.mustFailToPrepare(during, "no space left on device", n.dataDir(), "has room")
	p.mustPrepare(before)
	p.kill()
	p = n.start() // also on a full disk
	p.mustFailToPrepare(during, "no space left on device", n.dataDir(), "has room")
	p.mustPrepare(before)
	p.mustUnprepare(before)
	n.mustBeClean()
	free()
	p.mustPrepare(during)
	p.mustUnprepare(during)
	p.mustGiveAll()
	p.stop()
	n.mustBeClean()
}

// The plugin starts on a full disk that has lost what a device says, and cannot
// put that in order. What is prepared can be given back. The device goes to
// nobody else, and all goes on once there is room.
func TestFullDiskThatHasLostFiles(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	plugins := filepath.Join(n.dir, "plugins")
	n.mount("faults", plugins, "tmpfs", 0, "size=96m")
	stays, ended, next := n.newClaim("gpu-0"), n.newClaim("gpu-1"), n.newClaim("gpu-0")
	p := n.start()
	p.mustPrepare(stays)
	p.mustPrepare(ended)
	p.kill()
	n.remove(filepath.Join(n.dataDir(), "devices", n.holdings(stays)[0]))
	free := fill(t, plugins)
	p = n.start()
	p.waitLog("Nothing can be prepared yet")
	mustSay(t, p.prepareUnchecked(next), "no space left on device", n.dataDir(), "has room")
	p.mustUnprepare(ended)
	free()
	waiting := make(chan error, 1)
	go func() { waiting <- p.prepareUnchecked(next) }()
	p.waitLog("Waiting for a device's release")
	p.mustPrepare(stays)
	p.mustUnprepare(stays)
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	p.mustUnprepare(next)
	n.mustBeClean()
	p.mustGiveAll()
}

// A file that makes no sense is set aside on a full disk too.
func TestFullDiskWithAnUnreadableFile(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	plugins := filepath.Join(n.dir, "plugins")
	n.mount("faults", plugins, "tmpfs", 0, "size=96m")
	broken, ended := n.newClaim("gpu-0"), n.newClaim("gpu-1")
	p := n.start()
	p.mustPrepare(broken)
	p.mustPrepare(ended)
	p.kill()
	n.write(n.record(broken), "")
	free := fill(t, plugins)
	p = n.start()
	mustSay(t, logged(p), n.record(broken)+" cannot be read", "File set aside")
	p.mustUnprepare(ended)
	free()
	p.mustPrepare(broken)
	p.mustUnprepare(broken)
	n.mustBeClean()
	p.mustGiveAll()
}

// The disk has room for the first of a preparation's files only.
func TestDiskThatFillsUp(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.start()
	p.stop() // what it keeps between starts is there
	records := filepath.Join(n.dataDir(), "claims")
	n.mount("faults", records, "tmpfs", 0, "size=64k")
	c := n.newClaim("gpu-0", "gpu-1")
	p = n.start()
	free := fill(t, records)
	p.mustFailToPrepare(c, "no space left on device", n.record(c)[:len(n.dataDir())], "has room")
	free()
	p.mustPrepare(c)
	p.mustUnprepare(c)
	p.mustGiveAll()
}

func TestCDIFolder(t *testing.T) {
	t.Run("full", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.mount("faults", n.cdiDir(), "tmpfs", 0, "size=1m")
		c := n.newClaim("gpu-0")
		p := n.start()
		free := fill(t, n.cdiDir())
		mustSay(t, p.prepareUnchecked(c), "no space left on device", n.cdiDir(), "has room")
		free()
		n.mustBeClean()
		p.mustGiveAll()
	})
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		c := n.newClaim("gpu-0")
		n.remove(n.cdiDir())
		p := n.start()
		p.mustPrepare(c)
		n.remove(n.cdiDir())
		p.mustPrepare(c) // kubelet asks again before it starts containers
		n.remove(n.cdiDir())
		p.mustUnprepare(c)
		n.mustBeClean()
		p.mustGiveAll()
	})
	t.Run("read-only", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		prepared, refused := n.newClaim("gpu-0"), n.newClaim("gpu-1")
		p := n.start()
		p.mustPrepare(prepared)
		writable := n.readOnly(n.cdiDir())
		p.mustFailToPrepare(refused, "read-only file system", n.cdiDir(), "can be written")
		mustSay(t, p.unprepare(prepared), prepared.String(), "read-only file system", n.cdiDir(), "can be written")
		p.kill()
		p = n.start()
		p.mustFailToPrepare(refused, "read-only file system", n.cdiDir(), "can be written")
		writable()
		p.mustUnprepare(prepared) // kubelet tries again
		n.mustBeClean()
		p.mustGiveAll()
	})
	t.Run("a file", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		c := n.newClaim("gpu-0")
		n.remove(n.cdiDir())
		n.write(n.cdiDir(), "not a folder")
		p := n.start()
		mustSay(t, p.prepareUnchecked(c), c.String(), n.cdiDir(), "is a folder that the plugin may write")
		n.remove(n.cdiDir())
		n.mustBeClean()
		p.mustPrepare(c)
		p.mustUnprepare(c)
		p.mustGiveAll()
	})
}

// The data folder cannot be written at all, as after a file system error.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	prepared, refused := n.newClaim("gpu-0"), n.newClaim("gpu-1")
	p := n.start()
	p.mustPrepare(prepared)
	writable := n.readOnly(n.dataDir())
	p.mustFailToPrepare(refused, "read-only file system", n.dataDir(), "can be written")
	mustSay(t, p.unprepare(prepared), prepared.String(), "read-only file system", n.dataDir(), "can be written")
	p.kill()
	n.launch().mustRefuse("read-only file system", n.dataDir())
	writable()
	p = n.start()
	p.mustUnprepare(prepared)
	n.mustBeClean()
	p.mustGiveAll()
}

// Kubelet has not made its folders: --kubelet-root is wrong.
func TestNoRegistrarFolder(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.remove(n.registrarDir())
	n.launch().mustRefuse(n.registrarDir(), "no such file or directory", "--kubelet-root")
	if err := os.Mkdir(n.registrarDir(), 0o750); err != nil {
		t.Fatal(err)
	}
	n.start().mustGiveAll()
}
