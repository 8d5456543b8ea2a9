package packages

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const bookworm = "ID=debian\nVERSION_CODENAME=bookworm\n"

func TestSources(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  string
		fails string
	}{
		{
			name: "deb822, as Debian's images have it",
			files: map[string]string{
				"os-release": bookworm,
				"apt/sources.list.d/debian.sources": `Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
`,
				"apt/sources.list.d/other.sources": "Types: deb\nURIs: http://other.example/\nSuites: nodistro\nComponents: main\n",
			},
			want: `Types: deb
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://mirror.example/security
Suites: trixie-security
Components: main

`,
		},
		{
			name: "one line a source",
			files: map[string]string{
				"os-release": `ID="debian"` + "\nVERSION_CODENAME=trixie\n",
				"apt/sources.list": `deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main # ours
deb-src http://mirror.example/debian trixie main
# deb http://old.example/debian trixie main
deb http://cloud.example/apt cloud-sdk-trixie main
`,
			},
			want: "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\nComponents: main\nSigned-By: /k.gpg\n\n",
		},
		{
			name: "an embedded key, and a source that is turned off",
			files: map[string]string{
				"os-release": bookworm,
				"apt/sources.list.d/a.sources": "Types: deb\nURIs: http://a.example/\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n -----END\n" +
					"\nEnabled: no\nTypes: deb\nURIs: http://b.example/\nSuites: bookworm\nComponents: main\n",
			},
			want: "Types: deb\nURIs: http://a.example/\nSuites: trixie\nComponents: main\nSigned-By: \n -----BEGIN\n .\n -----END\n\n",
		},
		{
			name:  "another distribution",
			files: map[string]string{"os-release": "ID=fedora\nVERSION_ID=42\n"},
			fails: `this machine is "fedora"`,
		},
		{
			name:  "no mirror",
			files: map[string]string{"os-release": bookworm, "apt/sources.list": "\n"},
			fails: "no source in",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for name, content := range test.files {
				path := filepath.Join(root, "etc", name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Sources(root, "trixie")
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("got %v, want an error about %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("sources (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAptConfigKeepsOnlyHowToReachMirrors(t *testing.T) {
	got := aptConfig(`APT::Update::Post-Invoke:: "rm something";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::IndexTargets::deb::DEP-11 "";
DPkg::Pre-Install-Pkgs:: "ask";
`)
	want := `Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Acquire::http::Proxy "http://proxy.example:3128";
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}
