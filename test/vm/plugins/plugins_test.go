package plugins

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnEntryOfTheCacheStandsForAllThatIsBuilt(t *testing.T) {
	module := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(module, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := func() string {
		t.Helper()
		key, err := contentKey(t.Context(), module)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	write("go.mod", "module first\n")
	write("go.sum", "")
	first := key()
	if again := key(); again != first {
		t.Errorf("nothing has changed, and the key is %s after %s", again, first)
	}
	write("go.sum", "example.com/a v1.0.0 h1:1=\n")
	second := key()
	write("go.mod", "module second\n")
	if third := key(); first == second || second == third {
		t.Errorf("a change of go.sum, then of go.mod, makes of the key %s first %s and then %s", first, second, third)
	}
}

// The documentation says which versions were tried.
func TestTheDocumentationNamesTheVersions(t *testing.T) {
	page, err := os.ReadFile("../../../docs/device-plugin.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ module, called string }{
		Multus: {"gopkg.in/k8snetworkplumbingwg/multus-cni.v4", "Multus"},
		SRIOV:  {"github.com/intel/sriov-cni", "sriov-cni"},
	} {
		content, err := os.ReadFile(filepath.Join(name, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(content), "\t"+test.module+" v")
		version, _, _ := strings.Cut(after, " ")
		version = strings.TrimSuffix(version, "+incompatible")
		if version == "" || !strings.Contains(string(page), test.called+" "+version) {
			t.Errorf("docs/device-plugin.md does not name %s %s", test.called, version)
		}
	}
}
