package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A file of the plugin's own that makes no sense is set aside, and what it
// said is made anew: from the device files, or from the claim.
func TestUnreadableFiles(t *testing.T) {
	write := func(content string) func(*node, string) {
		return func(n *node, path string) { n.write(path, content) }
	}
	damages := map[string]func(*node, string){
		"empty":     write(""),
		"truncated": func(n *node, path string) { n.write(path, mustRead(n.t, path)[:40]) },
		"binary":    write("\x00\x01\x02"),
		"version 0": func(n *node, path string) { n.edit(path, func(c map[string]any) { c["version"] = 0 }) },
		"a list":    write("[]"),
		"of nobody": func(n *node, path string) { n.edit(path, func(c map[string]any) { c["claim"] = map[string]any{} }) },
		"a device that is no device": func(n *node, path string) {
			n.edit(path, func(c map[string]any) { c["devices"], c["device"] = "gpu-0", "gpu-0" })
		},
		// Root may read whatever its mode says, but not a folder.
		"a folder": func(n *node, path string) {
			n.remove(path)
			n.write(filepath.Join(path, "file"), "")
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for which, file := range map[string]func(*node, claim) string{
				"record": (*node).record,
				"holding": func(n *node, c claim) string {
					return filepath.Join(n.dataDir(), "devices", n.holdings(c)[0])
				},
			} {
				for when, restart := range map[string]bool{"while it runs": false, "before a start": true} {
					t.Run(which+" "+when, func(t *testing.T) {
						n := newNode(t)
						c, thief := n.newClaim("gpu-0"), n.newClaim("gpu-0")
						p := n.start()
						p.mustPrepare(c)
						path := file(n, c)
						damage(n, path)
						if restart {
							p.kill()
							p = n.start()
						}
						waiting := make(chan error, 1)
						go func() { waiting <- p.prepareUnchecked(thief) }()
						p.waitLog("Waiting for a device's release")
						p.mustPrepare(c)
						mustSay(t, logged(p), path+" cannot be read", "File set aside", "can be deleted")
						aside := dirEntries(t, filepath.Join(n.dataDir(), "unreadable"))
						if len(aside) != 1 || !strings.HasPrefix(aside[0], filepath.Base(path)) {
							t.Errorf("set aside: %v", aside)
						}
						p.mustUnprepare(c)
						if err := <-waiting; err != nil {
							t.Fatal(err)
						}
						p.mustUnprepare(thief)
						n.mustBeClean()
						p.mustGiveAll()
						p.stop()
					})
				}
			}
		})
	}
}

// holdings are the names of the files of what a claim holds, at least one.
func (n *node) holdings(c claim) []string {
	n.t.Helper()
	dir := filepath.Join(n.dataDir(), "devices")
	var held []string
	for _, name := range dirEntries(n.t, dir) {
		if strings.Contains(mustRead(n.t, filepath.Join(dir, name)), string(c.UID)) {
			held = append(held, name)
		}
	}
	if len(held) == 0 {
		n.t.Fatal("the claim holds nothing")
	}
	return held
}

// The record is broken and kubelet does not want the claim any more.
func TestUnreadableRecordIsUnprepared(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.newClaim("gpu-0", "gpu-1")
	p := n.start()
	p.mustPrepare(c)
	n.write(n.record(c), "")
	p.mustUnprepare(c)
	n.mustBeClean()
	p.mustGiveAll()
}

// Records of an older and of a newer release are understood, and what a newer
// one wrote is kept.
func TestFormatsOfOtherReleases(t *testing.T) {
	for name, change := range map[string]func(record map[string]any){
		"older: no optional fields": func(r map[string]any) {
			r["version"] = 1
			delete(r, "pods")
			for _, d := range devicesIn(r) {
				for _, field := range []string{"config", "cdiDeviceIDs", "attributes", "shareID", "adminAccess"} {
					delete(d, field)
				}
			}
		},
		"newer: version 99 and fields that nobody knows": func(r map[string]any) {
			r["version"] = 99
			r["sharing"] = map[string]any{"mode": "time"}
			for _, d := range devicesIn(r) {
				d["partition"] = "1g.18gb"
				d["config"] = map[string]any{"apiVersion": "resource.eks-hybrid-dra/v7", "kind": "GpuConfig", "sharing": true}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			c := n.newClaim("gpu-0", "gpu-1")
			p := n.start()
			p.mustPrepare(c)
			p.kill()
			n.edit(n.record(c), change)
			before := map[string]any{}
			n.edit(n.record(c), func(r map[string]any) { before = r })
			n.reserve(c)
			p = n.start()
			// One more pod uses the claim, so the record is written anew.
			eventually(t, "noted the pod", func() error {
				if !strings.Contains(mustRead(t, n.record(c)), `"pods"`) {
					return os.ErrNotExist
				}
				return nil
			})
			n.edit(n.record(c), func(r map[string]any) {
				delete(r, "pods")
				if diff := cmp.Diff(before, r); diff != "" {
					t.Errorf("the record changed (-before +after):\n%s", diff)
				}
			})
			p.mustPrepare(c)
			p.mustUnprepare(c)
			n.mustBeClean()
			p.mustGiveAll()
		})
	}
}

func devicesIn(record map[string]any) []map[string]any {
	var all []map[string]any
	list, _ := record["devices"].([]any)
	for _, d := range list {
		if device, ok := d.(map[string]any); ok {
			all = append(all, device)
		}
	}
	return all
}
