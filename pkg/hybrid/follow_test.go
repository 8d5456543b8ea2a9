package hybrid

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/klog/v2/ktesting"
)

// kubelet replaces a link to the folder with the content of a ConfigMap.
func TestFollowsConfigMaps(t *testing.T) {
	_, ctx := ktesting.NewTestContext(t)
	ctx, cancel := context.WithCancel(ctx)
	volume := t.TempDir()
	version := 0
	put := func(content string) {
		t.Helper()
		version++
		folder := "..data_" + string(rune('a'+version))
		for _, err := range []error{
			os.Mkdir(filepath.Join(volume, folder), 0o755),
			os.WriteFile(filepath.Join(volume, folder, "hybrid.yaml"), []byte(content), 0o600),
			os.Symlink(folder, filepath.Join(volume, "..data_tmp")),
			os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	file := filepath.Join(volume, "hybrid.yaml")
	seen := make(chan string)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		follow(ctx, file, func(content []byte, err error) {
			text := string(content)
			if err != nil {
				text = err.Error()
			}
			select {
			case seen <- text:
			case <-ctx.Done():
			}
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-seen:
			if !strings.Contains(got, want) {
				t.Fatalf("it tells of %q, want %q", got, want)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("it does not tell of %q", want)
		}
	}
	expect("no such file")
	put("one")
	if err := os.Symlink("..data/hybrid.yaml", file); err != nil {
		t.Fatal(err)
	}
	expect("one")
	put("two")
	expect("two")
	put("two") // nothing new
	put("three")
	expect("three")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	expect("no such file")
	cancel()
	<-ended
}
