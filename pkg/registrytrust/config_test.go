package registrytrust

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseConfig(t *testing.T) {
	got, err := ParseConfig([]byte(`
registries:
- host: harbor.example.com
- host: harbor.example.com:8443
  caFiles: [one.crt, two.crt]
- host: "[fd00::5]:5000"
- host: 10.0.0.5
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{Registries: []Registry{
		{Host: "harbor.example.com", CAFiles: []string{"ca.crt"}},
		{Host: "harbor.example.com:8443", CAFiles: []string{"one.crt", "two.crt"}},
		{Host: "[fd00::5]:5000", CAFiles: []string{"ca.crt"}},
		{Host: "10.0.0.5", CAFiles: []string{"ca.crt"}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := ParseConfig([]byte("registries: []\n")); err != nil || len(got.Registries) != 0 {
		t.Errorf("no registries: %+v, %v", got, err)
	}
}

func TestMistakesInTheConfigAreNamed(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		say    []string
	}{
		"empty":            {"", []string{"registries is missing", "registries: []"}},
		"null":             {"registries:\n", []string{"registries is missing"}},
		"unknown field":    {"registries:\n- host: h.example.com\n  skipVerify: true\n", []string{"skipVerify"}},
		"twice":            {"registries:\n- host: h.example.com\n- host: h.example.com\n", []string{"registries[1]", `"h.example.com" is there twice`}},
		"URL":              {"registries:\n- host: https://h.example.com\n", []string{"registries[0]", "https://h.example.com", "harbor.example.com:8443"}},
		"path":             {"registries:\n- host: ../../etc\n", []string{`"../../etc"`}},
		"default settings": {"registries:\n- host: _default\n", []string{`"_default"`}},
		"empty host":       {"registries:\n- caFiles: [a.crt]\n", []string{`host ""`}},
		"port":             {"registries:\n- host: h.example.com:70000\n", []string{`"70000" is no port`}},
		"port with zeros":  {"registries:\n- host: h.example.com:0443\n", []string{`"0443" is no port`}},
		"IPv6":             {"registries:\n- host: fd00::5\n", []string{`"fd00::5"`}},
		"Docker Hub":       {"registries:\n- host: docker.io\n", []string{"Docker Hub", "leave it out"}},
		"file elsewhere":   {"registries:\n- host: h.example.com\n  caFiles: [../ca.crt, ..data, a.crt, a.crt]\n", []string{`caFiles[0] "../ca.crt"`, `caFiles[1] "..data"`, `caFiles[3] "a.crt" is there twice`}},
		"several":          {"registries:\n- host: A\n- host: b_c\n", []string{"registries[0]", "registries[1]"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig([]byte(test.config))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.say {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
		})
	}
}

func TestFolderOf(t *testing.T) {
	for host, want := range map[string]string{
		"harbor.example.com":      "harbor.example.com",
		"harbor.example.com:8443": "harbor.example.com_8443_",
		"10.0.0.5:5000":           "10.0.0.5_5000_",
		"[fd00::5]:5000":          "[fd00::5]_5000_",
	} {
		if got := FolderOf(host); got != want {
			t.Errorf("FolderOf(%q) = %q, want %q", host, got, want)
		}
	}
}

// Whatever is accepted names folders and files right below their own folder.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("registries:\n- host: h.example.com:5000\n  caFiles: [ca.crt]\n"))
	f.Add([]byte("registries: []"))
	f.Add([]byte(`{"registries":[{"host":"[::1]:5000"}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		config, err := ParseConfig(content)
		if err != nil {
			return
		}
		for _, registry := range config.Registries {
			for _, name := range append([]string{FolderOf(registry.Host)}, registry.CAFiles...) {
				if name == "" || strings.HasPrefix(name, ".") && strings.Trim(name, ".") == "" || strings.ContainsAny(name, "/\x00\n") || strings.HasPrefix(name, tempPrefix) {
					t.Errorf("%q was accepted, from %q", name, content)
				}
			}
			if address, name := addressOf(registry.Host); address == "" || name == "" {
				t.Errorf("no address of %q", registry.Host)
			}
		}
	})
}
