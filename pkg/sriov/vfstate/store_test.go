package vfstate

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

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

func vf(t testing.TB) topology.Address {
	t.Helper()
	a, err := topology.ParseAddress("0000:18:00.1")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func journal() *Journal {
	trust := true
	return &Journal{
		Version: FormatVersion, Device: "0000:18:00.1", BootID: "boot", Claim: device.Claim{Namespace: "team", Name: "c", UID: "uid"},
		Config: json.RawMessage(`{"mode":"netdevice"}`), Network: json.RawMessage(`{"name":"blue"}`),
		Former:  &Former{Interface: "ens1v0", HardwareAddress: "02:00:00:00:00:01", MTU: 1500, Driver: "mlx5_core", Settings: Settings{VLAN: &VLAN{ID: 5}, TxRate: &Rate{Max: 9}}},
		Applied: Settings{Trust: &trust, LinkState: "auto"},
		Place:   &Place{Sandbox: device.Sandbox{ID: "s", Path: "/run/netns/s", Namespace: "4:5"}, Interface: "net1", Done: true, Attachment: device.Attachment{Interface: "net1", IPs: []string{"10.0.0.1/8"}}},
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	s := New(filepath.Join(t.TempDir(), "vfs"))
	if j, err := s.Load(vf(t)); j != nil || err != nil {
		t.Fatalf("a VF without a journal has %v, %v", j, err)
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Fatalf("an empty store lists %v, %v", list, err)
	}
	for range 2 {
		if err := s.Save(vf(t), journal()); err != nil {
			t.Fatal(err)
		}
		j, err := s.Load(vf(t))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(journal(), j); diff != "" {
			t.Errorf("read something else (-written +read):\n%s", diff)
		}
	}
	if list, err := s.List(); len(list) != 1 || list[0] != vf(t) || err != nil {
		t.Errorf("listed %v, %v", list, err)
	}
	for range 2 {
		if err := s.Delete(vf(t)); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := os.ReadDir(s.dir); len(entries) != 0 || err != nil {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestUnreadable(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"empty":          "",
		"truncated":      `{"version":1,"device":"0000:18:0`,
		"of nobody":      `{"version":1,"device":"0000:18:00.1"}`,
		"of another VF":  `{"version":1,"device":"0000:18:00.2","bootID":"b"}`,
		"of no version":  `{"device":"0000:18:00.1","bootID":"b"}`,
		"without a pod":  `{"version":1,"device":"0000:18:00.1","bootID":"b","place":{}}`,
		"not an object":  `[1]`,
		"of wrong types": `{"version":1,"device":"0000:18:00.1","bootID":7}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := New(t.TempDir())
			if err := os.WriteFile(s.path(vf(t)), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := s.Load(vf(t))
			var unreadable *UnreadableError
			if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), s.path(vf(t))) {
				t.Fatalf("got %v", err)
			}
			path, err := s.SetAside(vf(t))
			if err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(path); string(data) != content || err != nil {
				t.Errorf("the file set aside has %q, %v", data, err)
			}
			if j, err := s.Load(vf(t)); j != nil || err != nil {
				t.Errorf("afterwards there is %v, %v", j, err)
			}
		})
	}
}

// A newer release has written more than this one knows.
func TestNewerFormat(t *testing.T) {
	t.Parallel()
	s := New(t.TempDir())
	if err := os.WriteFile(s.path(vf(t)), []byte(`{"version":7,"device":"0000:18:00.1","bootID":"b","later":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err := s.Load(vf(t)); err != nil || j.BootID != "b" {
		t.Errorf("got %v, %v", j, err)
	}
}

func TestCannotWrite(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(dir)
	err := s.Save(vf(t), journal())
	if err == nil || !strings.Contains(err.Error(), "0000:18:00.1") || !strings.Contains(err.Error(), "see that "+dir) {
		t.Errorf("got %v", err)
	}
}

// What a crash in the middle of a write has left is in nobody's way.
func TestHalfWritten(t *testing.T) {
	t.Parallel()
	s := New(t.TempDir())
	left := s.path(vf(t)) + tempSuffix
	if err := os.WriteFile(left, []byte(strings.Repeat("x", 10000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err := s.Load(vf(t)); j != nil || err != nil {
		t.Errorf("got %v, %v", j, err)
	}
	if err := s.Save(vf(t), journal()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(vf(t)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(vf(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("the half-written file is still there: %v", err)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := New(dir).Lock(t.Context(), vf(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("gave up waiting"))
	defer cancel()
	if _, err := New(dir).Lock(ctx, vf(t)); err == nil || !strings.Contains(err.Error(), "gave up waiting") || !strings.Contains(err.Error(), "0000:18:00.1") {
		t.Errorf("a lock that is held was given out, or: %v", err)
	}
	group, err := New(dir).LockGroup(t.Context(), "21")
	if err != nil {
		t.Fatal(err)
	}
	group()
	unlock()
	var wg sync.WaitGroup
	var inside, count atomic.Int32
	for range 20 {
		wg.Go(func() {
			unlock, err := New(dir).Lock(t.Context(), vf(t))
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			if n := inside.Add(1); n != 1 {
				t.Errorf("%d have the lock", n)
			}
			inside.Add(-1)
			count.Add(1)
		})
	}
	wg.Wait()
	if n := count.Load(); n != 20 {
		t.Errorf("%d of 20 had the lock", n)
	}
}

func FuzzDecode(f *testing.F) {
	data, err := json.Marshal(journal())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"device":"0000:18:00.1","bootID":"b","place":{"sandbox":{"id":"s"}}}`))
	f.Add([]byte(`{"version":1,"place":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := decode(data, vf(t))
		if err != nil {
			return
		}
		if j.Device != vf(t).String() || j.BootID == "" {
			t.Fatalf("accepted %+v", j)
		}
		// What is accepted survives being written.
		s := New(t.TempDir())
		if err := s.Save(vf(t), j); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(vf(t)); err != nil {
			t.Fatalf("%+v was written and is then refused: %v", j, err)
		}
	})
}
