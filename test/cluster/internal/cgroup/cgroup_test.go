package cgroup

import (
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
