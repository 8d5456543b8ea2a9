package metadatafiles

import (
	"os"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// A container has mounted the file that was there when it was made.
func TestAnUpdateIsSeenWhereTheFileIsMounted(t *testing.T) {
	dir := t.TempDir()
	store, err := claimstore.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	files := New(dir, store)
	path := files.Path(device.Claim{Namespace: "ns", Name: "claim-a"}, "r0")
	write := files.Operations().WriteFile
	for _, content := range []string{
		`{"metadata":{"uid":"a","generation":1},"more":"than is in the next one"}`,
		`{"metadata":{"uid":"a","generation":2}}`, `{"metadata":{"uid":"a","generation":3},"longer":"again"}`,
	} {
		before, statErr := os.Stat(path)
		if err := write(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("the file has %q, %v; want %q", got, err, content)
		}
		after, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if statErr == nil && !os.SameFile(before, after) {
			t.Errorf("another file has taken the place of the one with %q before", content)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := write(path, []byte(`{"metadata":{"uid":"a","generation":4}}`), 0o600); err == nil {
		t.Error("an update has made a file that was removed")
	}
}
