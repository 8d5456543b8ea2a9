package nickernel

import (
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

func TestRemoveRemovesTheSimulatedInterfacesAndNoOthers(t *testing.T) {
	h := newHost(t)
	at, err := netns.GetFromPath(h.opts.HostNetns)
	if err != nil {
		t.Fatal(err)
	}
	handle, err := handleAt(at)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "other"
	if err := handle.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(h.opts.HostNetns); err != nil {
			t.Fatal(err)
		}
	}
	links, err := list(handle)
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if name := link.Attrs().Name; name != "lo" && name != "other" {
			t.Errorf("interface %s is left", name)
		}
	}
	if _, err := handle.LinkByName("other"); err != nil {
		t.Errorf("an interface that is not of the simulation is gone: %v", err)
	}
}
