package nameplate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAppendAndRead(t *testing.T) {
	want := Machine{Model: "dgx-h200", DriverVersion: "550.54.15", CUDAVersion: "12.4", GPUs: []GPU{{Minor: 3, UUID: "GPU-3", MemoryMiB: 143771}}}
	library, err := Append([]byte("\x7fELF"), want)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "lib")
	if err := os.WriteFile(path, library, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestReadBroken(t *testing.T) {
	for name, test := range map[string]struct{ library, want string }{
		"no nameplate":  {"\x7fELF", "there is none"},
		"only magic":    {magic, "there is none"},
		"wrong length":  {"{}\xff\x00\x00\x00" + magic, "longer than the file"},
		"huge length":   {"{}\xff\xff\xff\xff" + magic, "longer than the file"},
		"not a machine": {"[]\x02\x00\x00\x00" + magic, "decoding"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lib")
			if err := os.WriteFile(path, []byte(test.library), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(path); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not say %q", err, test.want)
			}
		})
	}
}
