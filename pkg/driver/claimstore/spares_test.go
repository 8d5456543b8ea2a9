package claimstore

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

func (s *Store) mustSave(t *testing.T, uid string) os.FileInfo {
	t.Helper()
	if err := s.Save(&Record{Claim: claim(uid), BootID: uid}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(s.dir, "claims", uid+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func (s *Store) mustDelete(t *testing.T, uid string) {
	t.Helper()
	for range 2 { // repeatable
		if err := s.Delete(claim(uid).UID); err != nil {
			t.Fatal(err)
		}
	}
}

func countSpares(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "spare"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The file of a deleted record is used again, but not before the deletion is
// on the disk: loss of power could bring the old name back, with the content of
// another claim.
func TestFilesOfDeletedRecordsAreUsedAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	long := &Record{Claim: claim("a"), BootID: "a boot id that is longer than those of the claims to come"}
	if err := s.Save(long); err != nil {
		t.Fatal(err)
	}
	first, err := os.Stat(filepath.Join(dir, "claims", "a.json"))
	if err != nil {
		t.Fatal(err)
	}
	s.mustDelete(t, "a")
	if second := s.mustSave(t, "b"); os.SameFile(first, second) {
		t.Error("claim b got the file of claim a, whose deletion was not synced")
	}
	if third := s.mustSave(t, "c"); !os.SameFile(first, third) {
		t.Error("the file of claim a was not used again")
	}
	for _, uid := range []string{"b", "c"} {
		if r, err := s.Load(claim(uid).UID); err != nil || r.BootID != uid {
			t.Errorf("record %s: %v, %v", uid, r, err)
		}
	}
	if r, err := s.Load("a"); r != nil || err != nil {
		t.Errorf("the deleted record is back: %v, %v", r, err)
	}
}

// What is in the spare files is nobody's record, at no start.
func TestSparesAreNeverRead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.mustSave(t, "a")
	s.mustDelete(t, "a")
	again := open(t, dir)
	if uids, err := again.Claims(); len(uids) > 0 || err != nil {
		t.Errorf("claims %v, %v", uids, err)
	}
	if n := countSpares(t, dir); n != 1 {
		t.Fatalf("want one spare file, got %d", n)
	}
	again.mustSave(t, "b")
	if n := countSpares(t, dir); n != 0 {
		t.Error("a spare file of an earlier start was not used")
	}
}

func TestSparesAreFew(t *testing.T) {
	dir := t.TempDir()
	one, two := open(t, dir), open(t, dir)
	for n := range 2 * MaxSpares {
		one.mustSave(t, fmt.Sprintf("a%d", n))
		two.mustSave(t, fmt.Sprintf("b%d", n))
	}
	for n := range 2 * MaxSpares {
		one.mustDelete(t, fmt.Sprintf("a%d", n))
		two.mustDelete(t, fmt.Sprintf("b%d", n))
	}
	if n := countSpares(t, dir); n != 2*MaxSpares {
		t.Errorf("two instances keep %d files, want %d", n, 2*MaxSpares)
	}
	open(t, dir)
	if n := countSpares(t, dir); n != MaxSpares {
		t.Errorf("a start leaves %d files, want %d", n, MaxSpares)
	}
}

// Two instances never write into the same file, and who reads without a lock
// sees whole records of the claim that was asked for, or none.
func TestManyRecordsAtOnce(t *testing.T) {
	dir := t.TempDir()
	stores := []*Store{open(t, dir), open(t, dir)}
	var wg, readers sync.WaitGroup
	stop := make(chan struct{})
	for n := range 8 {
		s, uid := stores[n%2], fmt.Sprint(n)
		wg.Go(func() {
			for range 50 {
				if err := s.Save(&Record{Claim: claim(uid), BootID: uid}); err != nil {
					t.Error(err)
				}
				if r, err := s.Load(claim(uid).UID); err != nil || r == nil || r.BootID != uid {
					t.Errorf("claim %s: %v, %v", uid, r, err)
				}
				if err := s.Delete(claim(uid).UID); err != nil {
					t.Error(err)
				}
			}
		})
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if r, err := stores[0].Load(claim(uid).UID); err != nil || (r != nil && r.BootID != uid) {
					t.Errorf("claim %s, read without its lock: %v, %v", uid, r, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
}

func TestHoldingsOfOneClaim(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for thing, uid := range map[string]string{"pci-1": "a", "pci-2": "b", "pci-3": "a"} {
		// The UID of the other claim is in the file too.
		if _, err := s.Take(thing, Holding{Claim: device.Claim{Namespace: "ns", Name: "not-a-not-b", UID: claim(uid).UID}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "devices", "pci-4.json"), []byte(`{"version":1,"claim":{"uid":"a"`), 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := s.HoldingsOf("a")
	if err != nil || len(held) != 2 || held["pci-1"].Claim.UID != "a" || held["pci-3"].Claim.UID != "a" {
		t.Errorf("claim a holds %v, %v", held, err)
	}
}

func FuzzHolding(f *testing.F) {
	f.Add([]byte(`{"version":1,"claim":{"uid":"a"},"pods":["p"],"device":{"device":"gpu-0","x":1},"y":[]}`))
	f.Add([]byte(`{"version":1,"claim":{"uid":"a"},"device":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decodeHolding(data)
		if err != nil {
			return
		}
		written, err := json.Marshal(h)
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		again, err := decodeHolding(written)
		if err != nil {
			t.Fatalf("cannot read what was written, %s: %v", written, err)
		}
		if again.Claim.UID != h.Claim.UID {
			t.Fatalf("held by %q, and by %q when it was written and read", h.Claim.UID, again.Claim.UID)
		}
	})
}

// Somebody has tidied up while the plugin runs, or put something there.
func TestFolderOfSparesIsOutOfOrder(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "spare")
	if err := os.MkdirAll(filepath.Join(folder, "somebody's", "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	s.mustSave(t, "a")
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	s.mustDelete(t, "a")
	if r, err := s.Load("a"); r != nil || err != nil {
		t.Errorf("the deleted record is there: %v, %v", r, err)
	}
	s.mustSave(t, "b")
}
