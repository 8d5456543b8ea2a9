package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, mountinfo string
		want            []Hierarchy
	}{
		{
			name: "v2",
			mountinfo: `22 1 0:20 / /sys rw - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
`,
			want: []Hierarchy{{Dir: "/sys/fs/cgroup", V2: true}},
		},
		{
			name: "v1 with joined controllers, and v2 without",
			mountinfo: `31 22 0:27 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`,
			want: []Hierarchy{
				{Dir: "/sys/fs/cgroup/cpu,cpuacct", Controllers: []string{"rw", "cpu", "cpuacct"}},
				{Dir: "/sys/fs/cgroup/unified", V2: true},
			},
		},
		{
			name: "mounted twice",
			mountinfo: `32 31 0:28 / /c rw - cgroup cgroup rw,pids
40 31 0:28 / /c rw - cgroup cgroup rw,pids
`,
			want: []Hierarchy{{Dir: "/c", Controllers: []string{"rw", "pids"}}},
		},
		{name: "none", mountinfo: "22 1 0:20 / /sys rw - sysfs sysfs rw\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parse(test.mountinfo)); diff != "" {
				t.Errorf("hierarchies (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheControllersOfV2AreReadFromItsRoot(t *testing.T) {
	root := t.TempDir()
	table := filepath.Join(t.TempDir(), "mountinfo")
	line := "30 22 0:26 / " + root + " rw - cgroup2 cgroup2 rw\n"
	if err := os.WriteFile(table, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := hierarchies(table); err == nil || !strings.Contains(err.Error(), "cgroup.controllers") {
		t.Errorf("error %v does not name the file that cannot be read", err)
	}
	if err := os.WriteFile(filepath.Join(root, "cgroup.controllers"), []byte("cpuset cpu io memory pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := hierarchies(table)
	if err != nil {
		t.Fatal(err)
	}
	want := []Hierarchy{{Dir: root, V2: true, Controllers: []string{"cpuset", "cpu", "io", "memory", "pids"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("hierarchies (-want +got):\n%s", diff)
	}
}

func TestMissingControllersAreNamedWhereverTheyCouldBe(t *testing.T) {
	for name, test := range map[string]struct {
		all     []Hierarchy
		missing string
	}{
		"v2":                 {all: []Hierarchy{{V2: true, Controllers: []string{"cpuset", "cpu", "io", "memory", "pids"}}}},
		"v1":                 {all: []Hierarchy{{Controllers: []string{"cpu", "cpuacct"}}, {Controllers: []string{"cpuset"}}, {Controllers: []string{"memory"}}, {Controllers: []string{"pids"}}}},
		"some v1, some v2":   {all: []Hierarchy{{Controllers: []string{"cpu", "cpuset"}}, {V2: true, Controllers: []string{"memory", "pids"}}}},
		"not handed down":    {all: []Hierarchy{{V2: true, Controllers: []string{"cpu", "memory"}}}, missing: "cpuset, pids are"},
		"no cgroups mounted": {missing: "cpu, cpuset, memory, pids are"},
	} {
		t.Run(name, func(t *testing.T) {
			err := check(test.all)
			if test.missing == "" && err != nil {
				t.Error(err)
			}
			if test.missing != "" && (err == nil || !strings.Contains(err.Error(), test.missing)) {
				t.Errorf("error %v does not say %q", err, test.missing)
			}
		})
	}
}
