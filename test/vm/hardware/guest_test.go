//go:build guest

package hardware

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The network cards: two behind one switch on NUMA node 0, one straight in a
// root port on node 1.
const (
	pf0 = "0000:43:00.0"
	pf1 = "0000:44:00.0"
	pf2 = "0000:81:00.0"
)

const (
	pciDevices = "/sys/bus/pci/devices"
	patience   = 30 * time.Second
)

// sys is the path of a file of a PCI device.
func sys(address string, names ...string) string {
	return filepath.Join(append([]string{pciDevices, address}, names...)...)
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

func mustWrite(t *testing.T, path, value string) {
	t.Helper()
	if err := write(path, value); err != nil {
		t.Fatalf("write %q to %s: %v", value, path, err)
	}
}

// link is what a symbolic link points to, by its last name; empty is none.
func link(path string) string {
	target, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// netdev waits for the network interface of a PCI device.
func netdev(t *testing.T, address string) string {
	t.Helper()
	var name string
	await(t, "an interface of "+address, func() error {
		entries, err := os.ReadDir(sys(address, "net"))
		if err != nil {
			return err
		}
		if len(entries) != 1 {
			return fmt.Errorf("%d interfaces", len(entries))
		}
		name = entries[0].Name()
		return nil
	})
	return name
}

// makeVFs makes VFs of a PF that is up, and removes them when the test is over.
// It returns their addresses.
func makeVFs(t *testing.T, pf string, number int) []string {
	t.Helper()
	try(t, "ip", "link", "set", netdev(t, pf), "up")
	mustWrite(t, sys(pf, "sriov_numvfs"), fmt.Sprint(number))
	t.Cleanup(func() {
		if err := write(sys(pf, "sriov_numvfs"), "0"); err != nil {
			t.Error(err)
		}
	})
	var vfs []string
	for index := range number {
		vfs = append(vfs, link(sys(pf, fmt.Sprintf("virtfn%d", index))))
	}
	return vfs
}

// try runs a program that has to succeed, and returns what it printed.
func try(t *testing.T, args ...string) string {
	t.Helper()
	output, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, output)
	}
	return string(output)
}

// namespace makes a network namespace for the time of the test.
func namespace(t *testing.T, name string) {
	t.Helper()
	try(t, "ip", "netns", "add", name)
	t.Cleanup(func() {
		if output, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("remove namespace %s: %v: %s", name, err, output)
		}
	})
}

// move gives a VF to a namespace, with an address, under the name net1.
func move(t *testing.T, vf, namespace, address string) {
	t.Helper()
	try(t, "ip", "link", "set", netdev(t, vf), "netns", namespace, "name", "net1")
	try(t, "ip", "-n", namespace, "addr", "add", address, "dev", "net1")
	try(t, "ip", "-n", namespace, "link", "set", "net1", "up")
}

// ping sends one packet and waits a second for its answer.
func ping(namespace, address string) error {
	output, err := exec.Command("ip", "netns", "exec", namespace, "ping", "-c", "1", "-W", "1", address).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}

func await(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}
