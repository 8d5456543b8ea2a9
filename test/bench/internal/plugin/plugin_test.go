package plugin

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// shell is a plugin that is a shell script.
func shell(t *testing.T, script string) Kind {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Kind{Title: "script", program: path, args: func(p Place) []string { return []string{p.Node} }}
}

func start(t *testing.T, k Kind) (*Process, string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	p, err := k.Start(t.Context(), Place{KubeletRoot: filepath.Join(dir, "kubelet"), CDIRoot: filepath.Join(dir, "cdi"), Node: "n1"}, log)
	if err != nil {
		t.Fatal(err)
	}
	return p, log
}

func TestProcessIsLookedAtAndStopped(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "started")
	p, log := start(t, shell(t, `echo "node $1"; mkfifo `+fifo+`; trap 'echo stopping; exit 3' TERM; while :; do read -r line < `+fifo+`; done`))
	for { // until it listens
		if _, err := os.Stat(fifo); err == nil {
			break
		}
		select {
		case <-p.Ended():
			t.Fatal(p.Failure())
		default:
		}
	}
	if rss, err := p.RSS(); err != nil || rss < 1<<12 || rss > 1<<30 {
		t.Errorf("memory %d, %v", rss, err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.HasPrefix(string(text), "node n1\n") {
		t.Errorf("log %q, %v", text, err)
	}
}

func TestProcessThatEndsByItselfIsExplained(t *testing.T) {
	p, _ := start(t, shell(t, "echo no such device; exit 7"))
	<-p.Ended()
	err := p.Stop()
	if err == nil || !strings.Contains(err.Error(), "no such device") || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("want the end of the log and the exit status, got %v", err)
	}
}

func TestUnpackTakesOnlyPrograms(t *testing.T) {
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	for path, content := range map[string]string{"usr/bin/kubelet-plugin": "program", "usr/bin/deep/other": "no", "etc/passwd": "no"} {
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("localhost/x:dev")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := tarball.WriteToFile(filepath.Join(dir, "image.tar"), tag, image); err != nil {
		t.Fatal(err)
	}
	if _, err := Ours(filepath.Join(dir, "image.tar"), filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "bin"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "kubelet-plugin" {
		t.Errorf("unpacked %v, %v", entries, err)
	}
	if _, err := Ours(filepath.Join(dir, "missing.tar"), dir); err == nil || !strings.Contains(err.Error(), "missing.tar") {
		t.Errorf("an image that is missing: %v", err)
	}
}

func TestExampleThatCannotBeBuiltSaysWhy(t *testing.T) {
	if _, err := Example(t.Context(), t.TempDir(), t.TempDir()); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("want one line that says why, got %v", err)
	}
}
