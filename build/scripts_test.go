// Package build tests the scripts of this folder.
package build

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a folder of programs that stands for all that a machine has.
type machine struct{ bin string }

func newMachine(t *testing.T, programs map[string]string) machine {
	t.Helper()
	m := machine{bin: t.TempDir()}
	for name, script := range programs {
		m.add(t, name, script)
	}
	for _, name := range []string{"bash", "cat", "touch"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(m.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m machine) add(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.bin, name), []byte("#!/usr/bin/env bash\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// run runs a script on the machine and returns what it printed.
func (m machine) run(t *testing.T, script string, args ...string) (string, error) {
	t.Helper()
	path, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(m.bin, "bash"), append([]string{path}, args...)...)
	cmd.Env = []string{"PATH=" + m.bin}
	cmd.Dir = m.bin
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const (
	anyProgram = "exit 0"
	linker     = `[[ $1 == -print-file-name=libc.a ]] && echo /usr/lib/libc.a`
	// seccomp is there once it was installed.
	lacksSeccomp = `[[ $1 == --exists && ! -e installed ]] && exit 1; exit 0`
	installs     = `[[ $* == *install* ]] && { echo "$@" >calls; touch installed; }; exit 0`
)

func TestDeps(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("installing packages is tested as root, with stand-ins for the package managers")
	}
	for _, tc := range []struct {
		name     string
		programs map[string]string
		args     []string
		fails    bool
		prints   string
		// installs is what the package manager is asked for.
		installs string
	}{
		{
			name:     "all there",
			programs: map[string]string{"go": anyProgram, "gcc": linker, "pkg-config": anyProgram},
			args:     []string{"build", "cluster"},
		},
		{
			name:   "no Go",
			args:   []string{"build"},
			fails:  true,
			prints: "Go is missing",
		},
		{
			name:     "Debian",
			programs: map[string]string{"go": anyProgram, "gcc": linker, "pkg-config": lacksSeccomp, "apt-get": installs},
			args:     []string{"cluster"},
			prints:   "installing libseccomp-dev with apt-get",
			installs: "-qq install --yes --no-install-recommends libseccomp-dev\n",
		},
		{
			name:     "Fedora",
			programs: map[string]string{"go": anyProgram, "gcc": linker, "pkg-config": lacksSeccomp, "dnf": installs},
			args:     []string{"cluster"},
			prints:   "installing libseccomp-devel with dnf",
			installs: "--quiet --assumeyes install libseccomp-devel\n",
		},
		{
			name:     "not needed for this purpose",
			programs: map[string]string{"go": anyProgram, "gcc": linker, "pkg-config": lacksSeccomp},
			args:     []string{"build"},
		},
		{
			name:     "another distribution",
			programs: map[string]string{"go": anyProgram, "gcc": linker, "pkg-config": lacksSeccomp},
			args:     []string{"cluster"},
			fails:    true,
			prints:   "missing: seccomp. Install them with this machine's package manager",
		},
		{
			name:     "installing does not help",
			programs: map[string]string{"go": anyProgram, "gcc": linker, "pkg-config": lacksSeccomp, "apt-get": anyProgram},
			args:     []string{"cluster"},
			fails:    true,
			prints:   "still missing after installing libseccomp-dev: seccomp",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t, tc.programs)
			out, err := m.run(t, "deps.sh", tc.args...)
			if (err != nil) != tc.fails || !strings.Contains(out, tc.prints) || (tc.prints == "" && out != "") {
				t.Errorf("got %v and %q, want failure %v and %q", err, out, tc.fails, tc.prints)
			}
			calls, err := os.ReadFile(filepath.Join(m.bin, "calls"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if string(calls) != tc.installs {
				t.Errorf("the package manager was asked for %q, want %q", calls, tc.installs)
			}
		})
	}
}

func TestStep(t *testing.T) {
	m := newMachine(t, map[string]string{"good": "echo working", "bad": "exit 3"})
	out, err := m.run(t, "step.sh", "the work", "good")
	if want := "==> the work\nworking\n==> the work: done in 0m00s\n"; err != nil || out != want {
		t.Errorf("got %v and %q, want %q", err, out, want)
	}
	out, err = m.run(t, "step.sh", "the work", "bad")
	if failed := new(exec.ExitError); !errors.As(err, &failed) || failed.ExitCode() != 3 {
		t.Errorf("error %v, want exit status 3", err)
	}
	if want := "==> the work: failed after 0m00s"; !strings.Contains(out, want) {
		t.Errorf("got %q, want %q in it", out, want)
	}
}
