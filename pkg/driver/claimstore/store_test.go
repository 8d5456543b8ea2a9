package claimstore

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func claim(uid string) device.Claim {
	return device.Claim{Namespace: "ns", Name: "claim-" + uid, UID: types.UID(uid)}
}

func TestRecordComesBack(t *testing.T) {
	s := open(t, t.TempDir())
	want := &Record{
		Claim: claim("a"), BootID: "boot", Pods: []types.UID{"p"},
		Devices: []Device{{Family: "gpu", Request: "r", Pool: "n/d", Device: "gpu-0", Occupies: []string{"pci-0000:1b:00.0"}, Config: json.RawMessage(`{}`)}},
	}
	if err := s.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load("a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Record{}, Device{})); diff != "" {
		t.Errorf("record changed (-saved +loaded):\n%s", diff)
	}
	uids, err := s.Claims()
	if err != nil || !cmp.Equal(uids, []types.UID{"a"}) {
		t.Errorf("claims: %v, %v", uids, err)
	}
	for range 2 { // repeatable
		if err := s.Delete("a"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Load("a"); got != nil || err != nil {
		t.Errorf("after delete: %v, %v", got, err)
	}
}

// A plugin that is downgraded and upgraded again must not lose what the newer
// release wrote.
func TestFieldsOfANewerReleaseAreKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	newer := `{"version":7,"claim":{"namespace":"ns","name":"c","uid":"a"},"bootID":"b","shares":{"x":1},
		"devices":[{"family":"gpu","request":"r","pool":"p","device":"gpu-0","occupies":["pci-1"],"mps":"on"}]}`
	path := filepath.Join(dir, "claims", "a.json")
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := s.Load("a")
	if err != nil {
		t.Fatal(err)
	}
	r.BootID = "changed"
	if err := s.Save(r); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"version":7`, `"shares":{"x":1}`, `"mps":"on"`, `"bootID":"changed"`} {
		if !strings.Contains(string(written), want) {
			t.Errorf("%s is lost in %s", want, written)
		}
	}
}

func TestUnreadableRecords(t *testing.T) {
	for name, content := range map[string]string{
		"empty":            "",
		"truncated":        `{"version":1,"claim":{"namespace":"ns","na`,
		"not JSON":         "\x00\x00\x00",
		"no version":       `{"claim":{"uid":"a"}}`,
		"of another claim": `{"version":1,"claim":{"uid":"b"}}`,
		"wrong type":       `{"version":1,"claim":{"uid":"a"},"devices":"gpu-0"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			path := filepath.Join(dir, "claims", "a.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := s.Load("a")
			var unreadable *UnreadableError
			if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), path) {
				t.Fatalf("want an error that names %s, got %v", path, err)
			}
			aside, err := s.SetAside(t.Context(), unreadable)
			if err != nil {
				t.Fatal(err)
			}
			kept, err := os.ReadFile(aside)
			if err != nil || string(kept) != content {
				t.Errorf("set aside %q, %v", kept, err)
			}
			if r, err := s.Load("a"); r != nil || err != nil {
				t.Errorf("after setting aside: %v, %v", r, err)
			}
		})
	}
}

// Whoever takes a thing first has it, in whichever process, and the others are
// told who that is.
func TestOneOfManyTakes(t *testing.T) {
	dir := t.TempDir()
	stores := []*Store{open(t, dir), open(t, dir)}
	var (
		wg  sync.WaitGroup
		won atomic.Int32
	)
	for n := range 32 {
		wg.Go(func() {
			uid := string(rune('A' + n))
			holder, err := stores[n%2].Take("pci-1", Holding{Claim: claim(uid)})
			switch {
			case err != nil:
				t.Error(err)
			case holder == nil:
				won.Add(1)
			case holder.Claim.UID == types.UID(uid):
				t.Error("a claim was told that it is in its own way")
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d claims took the same thing", won.Load())
	}
	entries, err := os.ReadDir(filepath.Join(dir, "devices"))
	if err != nil || len(entries) != 1 {
		t.Errorf("want one file, got %v, %v", entries, err)
	}
}

func TestTakeAndFree(t *testing.T) {
	s := open(t, t.TempDir())
	take := func(uid string) *Holding {
		t.Helper()
		holder, err := s.Take("pci-1", Holding{Claim: claim(uid), Device: Device{Device: "gpu-0"}})
		if err != nil {
			t.Fatal(err)
		}
		return holder
	}
	if holder := take("a"); holder != nil {
		t.Fatalf("held by %v", holder)
	}
	if holder := take("a"); holder != nil {
		t.Fatalf("taking again: held by %v", holder)
	}
	if holder := take("b"); holder == nil || holder.Claim != claim("a") || holder.Device.Device != "gpu-0" {
		t.Fatalf("want to hear that claim a has gpu-0, got %v", holder)
	}
	freed := s.Freed()
	if err := s.Free("pci-1", "b"); err != nil { // not b's
		t.Fatal(err)
	}
	if holder := take("b"); holder == nil {
		t.Fatal("a claim gave back what another had")
	}
	select {
	case <-freed:
		t.Error("told of something given back that was not")
	default:
	}
	if err := s.Free("pci-1", "a"); err != nil {
		t.Fatal(err)
	}
	<-freed
	if holder := take("b"); holder != nil {
		t.Fatalf("after free: held by %v", holder)
	}
}

func TestLockExcludesOtherProcesses(t *testing.T) {
	dir := t.TempDir()
	one, two := open(t, dir), open(t, dir)
	unlock, err := one.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if unlockB, err := two.Lock(t.Context(), "b"); err != nil {
		t.Fatalf("another claim waited: %v", err)
	} else {
		unlockB()
	}
	for name, s := range map[string]*Store{"same process": one, "another process": two} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := s.Lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: want to wait in vain, got %v", name, err)
		}
		cancel()
	}
	got := make(chan error, 1)
	go func() {
		unlock, err := two.Lock(context.WithoutCancel(t.Context()), "a")
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Errorf("after unlock: %v", err)
	}
}

func TestInterruptedWritesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Save(&Record{Claim: claim("a")}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"claims/.writing-a.json", "devices/.writing-pci-1@a.json"} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
	for folder, want := range map[string]int{"claims": 1, "devices": 0} {
		entries, err := os.ReadDir(filepath.Join(dir, folder))
		if err != nil || len(entries) != want {
			t.Errorf("%s: want %d files, got %v, %v", folder, want, entries, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"claim":{"uid":"a"},"devices":[{"device":"gpu-0","x":1}],"y":[]}`))
	f.Add([]byte(`{"version":1,"version":2,"claim":{"uid":"a"}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data, "a")
		if err != nil {
			return
		}
		written, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		if _, err := decodeRecord(written, "a"); err != nil {
			t.Fatalf("cannot read what was written, %s: %v", written, err)
		}
	})
}
