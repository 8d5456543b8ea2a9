package machine

import (
	"os"
	"strings"
	"testing"
)

func TestLookAtThisMachine(t *testing.T) {
	dir := t.TempDir()
	c, err := Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Cores < 1 || c.MemoryBytes < 1<<20 || c.Kernel == "" || c.FileSystem == "" || c.SyncMedian <= 0 || c.Date.IsZero() {
		t.Errorf("conditions of this machine: %+v", c)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFileSystemOfProc(t *testing.T) {
	if kind, err := fileSystem("/proc/self"); err != nil || !strings.HasPrefix(kind, "proc (") {
		t.Errorf("file system of /proc/self: %q, %v", kind, err)
	}
}
