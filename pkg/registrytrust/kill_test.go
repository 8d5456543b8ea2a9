package registrytrust

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// killedIn names the folder in which the process that is to be killed writes.
const killedIn = "REGISTRY_TRUST_KILLED_IN"

// bundles are what it writes in turn, long enough to be seen half-written.
func bundles() []string {
	return []string{strings.Repeat("old\n", 10_000), strings.Repeat("new\n", 10_000)}
}

// TestWriteUntilKilled is no test by itself: it is the process that the next
// one kills.
func TestWriteUntilKilled(t *testing.T) {
	dir := os.Getenv(killedIn)
	if dir == "" {
		t.Skip("runs only as part of TestKilledAtAnyTime")
	}
	s := Store{Dir: dir}
	for i := 0; ; i++ {
		mustPut(t, s, bundles()[i%2])
		if i%3 == 2 {
			if err := s.Remove(folder); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Print(".")
	}
}

// Wherever the program is killed, containerd finds settings and certificates
// that are whole, or nothing; and the next program goes on, or removes all.
func TestKilledAtAnyTime(t *testing.T) {
	dir := t.TempDir()
	seen := map[bool]int{}
	for range 40 {
		writeAndKill(t, dir)
		seen[wantWhole(t, dir)]++
	}
	t.Logf("killed %d times with the folder there, %d times without", seen[true], seen[false])
	s := Store{Dir: dir}
	mustPut(t, s, "last\n")
	if got := len(tree(t, dir)); got != 3 {
		t.Errorf("more than the folder and its two files: %v", tree(t, dir))
	}
	if err := Remove(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if left := tree(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// writeAndKill has another process write for a few rounds, and kills it in the
// middle of what it does then.
func writeAndKill(t *testing.T, dir string) {
	t.Helper()
	writer := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWriteUntilKilled$")
	writer.Env = append(writer.Environ(), killedIn+"="+dir)
	progress, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, progress, 1+rand.Int64N(5)); err != nil {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	if err := writer.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Wait() // says that it was killed
}

// wantWhole fails the test where containerd would find something half-written,
// and says whether there is anything.
func wantWhole(t *testing.T, dir string) bool {
	t.Helper()
	settings, err := os.ReadFile(filepath.Join(dir, folder, hostsFile))
	if os.IsNotExist(err) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := os.ReadFile(filepath.Join(dir, folder, bundleFile))
	if err != nil {
		t.Fatalf("settings without certificates: %v", err)
	}
	if !signed(folder, hostsFile, settings) || !signed(folder, bundleFile, certificates) {
		t.Fatalf("not whole:\n%s\n%s", settings, certificates)
	}
	return true
}
