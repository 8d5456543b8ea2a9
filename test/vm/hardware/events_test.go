//go:build guest

package hardware

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// seen collects what the kernel announces.
type seen struct {
	mu    sync.Mutex
	times map[string]int
}

func (s *seen) add(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[what]++
}

// missing names those of the wanted announcements that did not come.
func (s *seen) missing(want ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range want {
		if s.times[what] == 0 {
			return fmt.Errorf("no %q among %v", what, s.times)
		}
	}
	return nil
}

func (s *seen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for what, times := range s.times {
		lines = append(lines, fmt.Sprintf("%3d  %s", times, what))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// Without udev the kernel itself still announces VFs, by uevent and rtnetlink.
func TestVFsAreAnnounced(t *testing.T) {
	all := &seen{times: map[string]int{}}
	uevents(t, all)
	links := make(chan netlink.LinkUpdate, 100)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	if err := netlink.LinkSubscribe(links, done); err != nil {
		t.Fatal(err)
	}
	go func() {
		for update := range links {
			kind := map[uint16]string{unix.RTM_NEWLINK: "new", unix.RTM_DELLINK: "deleted"}[update.Header.Type]
			all.add("rtnetlink " + kind + " link")
		}
	}()

	vfs := makeVFs(t, pf0, 2)
	await(t, "the VFs to be announced", func() error {
		return all.missing("add pci "+vfs[0], "bind pci "+vfs[0], "add net of "+vfs[0], "rtnetlink new link")
	})
	name := netdev(t, vfs[0])
	try(t, "ip", "link", "set", name, "name", "other")
	await(t, "a new name to be announced", func() error { return all.missing("move net of " + vfs[0]) })
	mustWrite(t, sys(vfs[0], "driver", "unbind"), vfs[0])
	await(t, "the loss of the driver to be announced", func() error {
		return all.missing("unbind pci "+vfs[0], "remove net of "+vfs[0], "rtnetlink deleted link")
	})
	mustWrite(t, sys(pf0, "sriov_numvfs"), "0")
	await(t, "the end of the VFs to be announced", func() error {
		return all.missing("remove pci "+vfs[0], "remove pci "+vfs[1])
	})
	t.Logf("announced:\n%s", all)
}

// uevents listens to what the kernel tells about devices.
func uevents(t *testing.T, all *seen) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			n, _, err := unix.Recvfrom(fd, buffer, 0)
			if err != nil {
				return
			}
			if what := describe(string(buffer[:n])); what != "" {
				all.add(what)
			}
		}
	}()
}

// describe shortens a uevent: a head and NAME=value pairs, all ended by zeros.
func describe(message string) string {
	values := map[string]string{}
	for _, field := range strings.Split(message, "\x00") {
		if name, value, ok := strings.Cut(field, "="); ok {
			values[name] = value
		}
	}
	switch values["SUBSYSTEM"] {
	case "pci":
		return values["ACTION"] + " pci " + values["PCI_SLOT_NAME"]
	case "net":
		path := strings.Split(values["DEVPATH"], "/")
		if len(path) > 3 {
			return values["ACTION"] + " net of " + path[len(path)-3]
		}
	}
	return values["ACTION"] + " " + values["SUBSYSTEM"]
}
