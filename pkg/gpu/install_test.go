package gpu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// install writes NVML's library of one version below a folder of the host.
func install(t *testing.T, host, folder, version string) string {
	t.Helper()
	dir := filepath.Join(host, folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := "libnvidia-ml.so." + version
	if err := os.WriteFile(filepath.Join(dir, file), []byte(version), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, nvmlLibrary)
	if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	return link
}

func TestFindDriver(t *testing.T) {
	for _, tc := range []struct {
		name, driverRoot string
		folders          []string
		wantRoot         string
		wantSearchPaths  string
	}{
		{name: "nothing installed"},
		{name: "packages of a distribution", folders: []string{"usr/lib/x86_64-linux-gnu"}, wantRoot: "/"},
		{name: "driver container", folders: []string{"run/nvidia/driver/usr/lib64"}, wantRoot: "/run/nvidia/driver"},
		{name: "both", folders: []string{"run/nvidia/driver/usr/lib64", "lib64"}, wantRoot: "/"},
		{name: "named root", driverRoot: "/opt/nvidia", folders: []string{"lib64", "opt/nvidia/lib64"}, wantRoot: "/opt/nvidia"},
		{name: "named root without a driver", driverRoot: "/opt/nvidia", folders: []string{"lib64"}},
		{name: "where nvcdi does not look", folders: []string{"usr/local/nvidia/lib64"}, wantRoot: "/", wantSearchPaths: "/usr/local/nvidia/lib64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			host := t.TempDir()
			for _, folder := range tc.folders {
				install(t, host, folder, "550.54.15")
			}
			opts := Options{HostRoot: host, DriverRoot: tc.driverRoot}.withDefaults()
			got, ok := opts.findDriver()
			if ok != (tc.wantRoot != "") {
				t.Fatalf("found %t: %+v", ok, got)
			}
			if !ok {
				return
			}
			if root := opts.onHost(got.root); root != tc.wantRoot {
				t.Errorf("got root %s, want %s", root, tc.wantRoot)
			}
			if got.version != "550.54.15" {
				t.Errorf("got version %q", got.version)
			}
			var paths string
			for _, p := range got.searchPaths() {
				paths += opts.onHost(p)
			}
			if paths != tc.wantSearchPaths {
				t.Errorf("nvcdi is told of %q, want %q", paths, tc.wantSearchPaths)
			}
		})
	}
}

// A driver that was installed anew is another one, also below the same names.
func TestFindDriverTellsDriversApart(t *testing.T) {
	host := t.TempDir()
	opts := Options{HostRoot: host}.withDefaults()
	install(t, host, "lib64", "550.54.15")
	first, _ := opts.findDriver()
	if again, _ := opts.findDriver(); again != first {
		t.Errorf("the same driver looks different: %+v, %+v", first, again)
	}
	install(t, host, "lib64", "560.1.2")
	if second, _ := opts.findDriver(); second == first {
		t.Error("another driver looks the same")
	}
}

func TestMissingDriverSaysWhereAndWhatToDo(t *testing.T) {
	err := Options{}.withDefaults().missingDriver(8)
	for _, want := range []string{"8 NVIDIA GPUs", "libnvidia-ml.so.1", "/run/nvidia/driver", "/usr/lib64", "install the NVIDIA driver", "every 5s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestOnHost(t *testing.T) {
	for _, tc := range []struct{ host, in, want string }{
		{"/", "/usr/lib64/libcuda.so", "/usr/lib64/libcuda.so"},
		{"/host", "/host/usr/lib64/libcuda.so", "/usr/lib64/libcuda.so"},
		{"/host", "/host", "/"},
		{"/host", "/hostile/file", "/hostile/file"},
		{"/host", "/dev/nvidia0", "/dev/nvidia0"},
	} {
		if got := (Options{HostRoot: tc.host}).onHost(tc.in); got != tc.want {
			t.Errorf("%s below %s: got %s, want %s", tc.in, tc.host, got, tc.want)
		}
	}
}
