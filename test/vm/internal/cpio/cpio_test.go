package cpio

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// entry is what a kernel would read.
type entry struct {
	Name, Content string
	Mode          int
	Device        [2]int
}

// parse reads archives as the kernel does, one after the other.
func parse(t *testing.T, archive []byte) []entry {
	t.Helper()
	var entries []entry
	at := 0
	align := func() { at = (at + 3) &^ 3 }
	for at < len(archive) {
		if archive[at] == 0 {
			at++
			continue
		}
		head := string(archive[at : at+110])
		if !strings.HasPrefix(head, "070701") {
			t.Fatalf("no header at %d: %q", at, head)
		}
		field := func(index int) int {
			value, err := strconv.ParseInt(head[6+8*index:14+8*index], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(value)
		}
		size, nameSize := field(6), field(11)
		name := string(archive[at+110 : at+110+nameSize-1])
		at += 110 + nameSize
		align()
		content := string(archive[at : at+size])
		at += size
		align()
		if name != "TRAILER!!!" {
			entries = append(entries, entry{name, content, field(1), [2]int{field(9), field(10)}})
		}
	}
	return entries
}

func TestArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("abcde"), 0o755); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := NewWriter(&archive)
	for _, err := range []error{
		w.Dir("proc"), w.File("/etc/hosts", 0o644, []byte("x")), w.Symlink("etc/link", "hosts"),
		w.Copy("usr/bin/program", path), w.CharDevice("dev/console", 0o600, 5, 1), w.Dir("etc"), w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []entry{
		{Name: "proc", Mode: 0o040755},
		{Name: "etc", Mode: 0o040755},
		{Name: "etc/hosts", Content: "x", Mode: 0o100644},
		{Name: "etc/link", Content: "hosts", Mode: 0o120777},
		{Name: "usr", Mode: 0o040755},
		{Name: "usr/bin", Mode: 0o040755},
		{Name: "usr/bin/program", Content: "abcde", Mode: 0o100755},
		{Name: "dev", Mode: 0o040755},
		{Name: "dev/console", Mode: 0o020600, Device: [2]int{5, 1}},
	}
	if diff := cmp.Diff(want, parse(t, archive.Bytes())); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestASecondArchiveCanFollow(t *testing.T) {
	var archive bytes.Buffer
	for _, name := range []string{"first", "init"} {
		w := NewWriter(&archive)
		if err := errors.Join(w.File(name, 0o755, []byte(name)), w.Close()); err != nil {
			t.Fatal(err)
		}
		if archive.Len()%alignment != 0 {
			t.Errorf("the archive ends at %d", archive.Len())
		}
	}
	if got := parse(t, archive.Bytes()); len(got) != 2 || got[1].Name != "init" {
		t.Errorf("got %v", got)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAFailedWriteIsTold(t *testing.T) {
	w := NewWriter(fullDisk{})
	if err := w.File("a/b", 0o644, nil); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
	if err := w.Close(); err == nil {
		t.Error("closing forgets the failure")
	}
}
