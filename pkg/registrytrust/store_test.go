package registrytrust

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	host   = "harbor.example.com:8443"
	folder = "harbor.example.com_8443_"
)

// mustPut writes a bundle and returns whether that changed anything.
func mustPut(t *testing.T, s Store, bundle string) bool {
	t.Helper()
	changed, err := s.Put(host, []byte(bundle))
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestPutWritesWhatContainerdReads(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	if !mustPut(t, s, "certificates\n") {
		t.Error("nothing changed")
	}
	got := tree(t, s.Dir)
	for name, want := range map[string]string{
		folder + "/hosts.toml": "server = \"https://harbor.example.com:8443\"\nca = \"ca.crt\"\n",
		folder + "/ca.crt":     "certificates\n",
	} {
		if !strings.HasSuffix(got[name], want) {
			t.Errorf("%s does not end with %q:\n%s", name, want, got[name])
		}
		info, err := os.Stat(filepath.Join(s.Dir, name))
		if err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("mode of %s: %v, %v", name, info.Mode(), err)
		}
	}
	if len(got) != 3 {
		t.Errorf("more than the folder and its two files: %v", got)
	}
	if mustPut(t, s, "certificates\n") {
		t.Error("the same again changed something")
	}
	if !mustPut(t, s, "others\n") {
		t.Error("other certificates changed nothing")
	}
	if bundle, err := s.Bundle(host); err != nil || !strings.HasSuffix(string(bundle), "\nothers\n") {
		t.Errorf("Bundle: %q, %v", bundle, err)
	}
}

// Whatever was there before is there after everything is removed, and nothing
// else.
func TestRemoveLeavesTheFolderAsItWas(t *testing.T) {
	for name, before := range map[string]map[string]string{
		"nothing":                 {},
		"an empty folder":         {folder + "/": ""},
		"others":                  {"other.example.com/hosts.toml": "server = 1\n", "_default/hosts.toml": "x", "file": "y", "empty/": ""},
		"a file with our name":    {"ca.crt": "x"},
		"a name like our own's":   {".registry-trust": "x"},
		"a folder that looks old": {"old.example.com/ca.crt": "-----BEGIN CERTIFICATE-----"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Store{Dir: t.TempDir()}
			put(t, s.Dir, before)
			want := tree(t, s.Dir)
			mustPut(t, s, "certificates\n")
			if written, err := s.Written(); err != nil || !cmp.Equal(written, []string{folder}) {
				t.Errorf("Written: %v, %v", written, err)
			}
			if err := Remove(t.Context(), s.Dir); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, tree(t, s.Dir)); diff != "" {
				t.Errorf("(-before +after):\n%s", diff)
			}
		})
	}
}

func TestFilesOfOthersAreLeftAlone(t *testing.T) {
	elsewhere := t.TempDir()
	for name, test := range map[string]struct {
		prepare func(t *testing.T, s Store)
		say     string
	}{
		"their settings":          {func(t *testing.T, s Store) { put(t, s.Dir, map[string]string{folder + "/hosts.toml": "server = 1"}) }, "hosts.toml"},
		"their certificate":       {func(t *testing.T, s Store) { put(t, s.Dir, map[string]string{folder + "/ca.crt": "x"}) }, "ca.crt"},
		"their client's key":      {func(t *testing.T, s Store) { put(t, s.Dir, map[string]string{folder + "/client.key": "x"}) }, "client.key"},
		"the folder's other name": {func(t *testing.T, s Store) { put(t, s.Dir, map[string]string{host + "/hosts.toml": "x"}) }, host},
		"a link": {func(t *testing.T, s Store) {
			if err := os.Symlink(elsewhere, filepath.Join(s.Dir, folder)); err != nil {
				t.Fatal(err)
			}
		}, folder},
		"ours, changed since": {func(t *testing.T, s Store) {
			mustPut(t, s, "before\n")
			content := tree(t, s.Dir)[folder+"/hosts.toml"]
			put(t, s.Dir, map[string]string{folder + "/hosts.toml": content + "skip_verify = true\n"})
		}, "hosts.toml"},
		"ours, copied": {func(t *testing.T, s Store) {
			mustPut(t, s, "before\n")
			if err := os.Rename(filepath.Join(s.Dir, folder), filepath.Join(s.Dir, "x")); err != nil {
				t.Fatal(err)
			}
			put(t, s.Dir, map[string]string{folder + "/hosts.toml": tree(t, s.Dir)["x/hosts.toml"] + " "})
		}, "hosts.toml"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Store{Dir: t.TempDir()}
			test.prepare(t, s)
			before := tree(t, s.Dir)
			_, err := s.Put(host, []byte("certificates\n"))
			problem := new(Problem)
			if !errors.As(err, &problem) || problem.Reason != ReasonForeignFiles {
				t.Fatalf("error %v, want the problem %s", err, ReasonForeignFiles)
			}
			for _, want := range []string{test.say, "move", "away", host} {
				if !strings.Contains(problem.Message, want) {
					t.Errorf("message does not say %q: %s", want, problem.Message)
				}
			}
			if diff := cmp.Diff(before, tree(t, s.Dir)); diff != "" {
				t.Errorf("(-before +after):\n%s", diff)
			}
		})
	}
}

func TestRemoveTakesOnlyWhatIsOurs(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	mustPut(t, s, "certificates\n")
	put(t, s.Dir, map[string]string{folder + "/notes.txt": "by hand"})
	if err := s.Remove(folder); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{folder: "folder", folder + "/notes.txt": "by hand"}
	if diff := cmp.Diff(want, tree(t, s.Dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := s.Remove("never.example.com"); err != nil {
		t.Errorf("what was never there: %v", err)
	}
}

// Every state in which a crash can leave the folder is put in order by the next
// call, and at no time is there a hosts.toml without its certificates.
func TestEveryCrashIsRepaired(t *testing.T) {
	whole := Store{Dir: t.TempDir()}
	mustPut(t, whole, "old\n")
	old := tree(t, whole.Dir)
	mustPut(t, whole, "new\n")
	wanted := tree(t, whole.Dir)
	states := map[string]map[string]string{
		"folder not renamed":   {tempPrefix + "1/ca.crt": wanted[folder+"/ca.crt"], tempPrefix + "1/hosts.toml": "half"},
		"file not renamed":     {tempPrefix + "2": "half", folder + "/ca.crt": old[folder+"/ca.crt"], folder + "/hosts.toml": old[folder+"/hosts.toml"]},
		"settings removed":     {folder + "/ca.crt": old[folder+"/ca.crt"]},
		"removal after rename": {tempPrefix + folder + "/ca.crt": old[folder+"/ca.crt"]},
	}
	for name, state := range states {
		t.Run(name, func(t *testing.T) {
			s := Store{Dir: t.TempDir()}
			put(t, s.Dir, state)
			mustPut(t, s, "new\n")
			if diff := cmp.Diff(wanted, tree(t, s.Dir)); diff != "" {
				t.Errorf("put (-want +got):\n%s", diff)
			}
			s = Store{Dir: t.TempDir()}
			put(t, s.Dir, state)
			if err := Remove(t.Context(), s.Dir); err != nil {
				t.Fatal(err)
			}
			if left := tree(t, s.Dir); len(left) > 0 {
				t.Errorf("left after removal: %v", left)
			}
		})
	}
}

func TestAMissingFolderIsExplained(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "missing")}
	_, err := s.Put(host, []byte("x"))
	if err == nil || !strings.Contains(err.Error(), "mounted") || !strings.Contains(err.Error(), host) {
		t.Errorf("error %v", err)
	}
}

// Nothing but the exact content at its own place is taken for ours.
func FuzzSigned(f *testing.F) {
	for _, content := range contents(host, []byte("x"), true) {
		f.Add(content)
	}
	f.Add([]byte(signature + "\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if !signed(folder, hostsFile, content) {
			return
		}
		for i := range content {
			changed := append([]byte{}, content...)
			changed[i] ^= 1
			if signed(folder, hostsFile, changed) {
				t.Fatalf("changed at %d, and still ours: %q", i, changed)
			}
		}
		if signed("other", hostsFile, content) || signed(folder, bundleFile, content) {
			t.Error("ours in another place")
		}
	})
}

func TestAllOursAreSigned(t *testing.T) {
	for name, content := range contents(host, []byte("x"), false) {
		if !signed(folder, name, content) || madeFolder(content) {
			t.Errorf("%s: %s", name, content)
		}
	}
	if got := len(maps.Collect(maps.All(contents(host, nil, true)))); got != 2 {
		t.Errorf("%d files", got)
	}
}
