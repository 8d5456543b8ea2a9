package containerdconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const v2 = `[plugins."io.containerd.grpc.v1.cri".registry]` + "\n"
const v3 = `[plugins."io.containerd.cri.v1.images".registry]` + "\n"

func TestLook(t *testing.T) {
	const both = `config_path = "CERTS:/etc/docker/certs.d"` + "\n"
	const one = `config_path = "CERTS"` + "\n"
	for name, test := range map[string]struct {
		files map[string]string
		state State
		say   []string
	}{
		"version 1":               {map[string]string{"config.toml": "[plugins.cri.registry]\n" + one}, Set, []string{"config.toml"}},
		"version 2":               {map[string]string{"config.toml": "version = 2\n" + v2 + one}, Set, nil},
		"version 3":               {map[string]string{"config.toml": "version = 3\n" + v3 + one}, Set, nil},
		"version 4":               {map[string]string{"config.toml": "version = 4\n" + v3 + one}, Set, nil},
		"with a slash at the end": {map[string]string{"config.toml": "version = 3\n" + v3 + `config_path = "CERTS/"`}, Set, nil},
		"an import": {map[string]string{
			"config.toml": "version = 3\nimports = [\"conf.d/*.toml\"]\n", "conf.d/a.toml": "version = 3\n" + v3 + one,
		}, Set, []string{"a.toml"}},
		"an import of an import, by its whole path": {map[string]string{
			"config.toml": "version = 3\nimports = [\"DIR/b.toml\"]\n", "b.toml": "imports = [\"c.toml\", \"config.toml\"]", "c.toml": "version = 3\n" + v3 + one,
		}, Set, []string{"c.toml"}},
		"a later import wins": {map[string]string{
			"config.toml": "version = 3\nimports = [\"a.toml\"]\n" + v3 + one, "a.toml": v3 + `config_path = "/other"`,
		}, Elsewhere, []string{"a.toml", `"/other"`, "--certs-dir"}},
		"unset in version 2":   {map[string]string{"config.toml": "version = 2\n"}, Unset, []string{`[plugins."io.containerd.grpc.v1.cri".registry]`, `config_path = "CERTS"`, "restart containerd once"}},
		"unset in version 3":   {map[string]string{"config.toml": "version = 3\n"}, Unset, []string{`[plugins."io.containerd.cri.v1.images".registry]`}},
		"empty":                {map[string]string{"config.toml": "version = 2\n" + v2 + `config_path = ""`}, Unset, nil},
		"elsewhere":            {map[string]string{"config.toml": "version = 2\n" + v2 + `config_path = "/etc/docker/certs.d"`}, Elsewhere, []string{`"/etc/docker/certs.d"`}},
		"a list":               {map[string]string{"config.toml": "version = 3\n" + v3 + both}, List, []string{"transfer service", "CERTS alone"}},
		"a list, pulls as EKS": {map[string]string{"config.toml": "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\ndiscard_unpacked_layers = true\n" + v3 + both}, Set, nil},
		"a list, pulls as EKS, version 2": {map[string]string{
			"config.toml": "version = 2\n" + v2 + both + "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n",
		}, Set, nil},
		"a list, with passwords": {map[string]string{
			"config.toml": "version = 2\n" + v2 + both + "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"h\".auth]\nusername = \"u\"\n",
		}, Set, nil},
		"an import takes the section in containerd 1": {map[string]string{
			"config.toml": "version = 2\nimports = [\"nvidia.toml\"]\n" + v2 + one,
			"nvidia.toml": "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_cdi = true\n",
		}, Unset, []string{"nvidia.toml", "containerd 1"}},
		"the same in version 3": {map[string]string{
			"config.toml": "version = 3\nimports = [\"nvidia.toml\"]\n" + v3 + one,
			"nvidia.toml": "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"overlayfs\"\n",
		}, Set, nil},
		"an import that is not mounted": {map[string]string{"config.toml": "version = 3\nimports = [\"/opt/x/c.toml\", \"/opt/y/*.toml\"]\n"}, Unknown, []string{"/opt/x/c.toml", "/opt/y/*.toml", "cannot be seen from here"}},
		"no file":                       {nil, Unknown, []string{"is not there", "containerd 1"}},
		"no TOML":                       {map[string]string{"config.toml": "version = = 3"}, Unknown, []string{"could not be read", "config.toml"}},
		"odd types":                     {map[string]string{"config.toml": "version = 3\n" + v3 + "config_path = [1]\nconfigs = 3\n"}, Unset, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			certs := filepath.Join(dir, "certs.d")
			fill := strings.NewReplacer("CERTS", certs, "DIR", dir)
			for file, content := range test.files {
				path := filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(fill.Replace(content)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got := Look(filepath.Join(dir, "config.toml"), certs)
			if got.State != test.state {
				t.Errorf("state %s, want %s: %s", got.State, test.state, got.Message)
			}
			for _, want := range append(test.say, certs) {
				if want = fill.Replace(want); !strings.Contains(got.Message, want) {
					t.Errorf("message does not say %q: %s", want, got.Message)
				}
			}
		})
	}
	if got := Look("", "/certs"); got.State != Unknown || !strings.Contains(got.Message, "not mounted") {
		t.Errorf("not mounted: %+v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("version = 3\nimports = [\"a\"]\n" + v3 + "config_path = \"/x:/y\"\n"))
	f.Add([]byte("version = 2\n" + v2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs]\n"))
	f.Add([]byte("plugins = 3"))
	f.Fuzz(func(t *testing.T, content []byte) {
		parsed, err := parse("config.toml", content)
		if err == nil {
			judge([]file{parsed}, "/etc/containerd/certs.d")
		} else if !strings.Contains(err.Error(), "config.toml") {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}
