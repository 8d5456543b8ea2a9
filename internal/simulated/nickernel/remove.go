package nickernel

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netns"
)

// Remove removes the interfaces that a simulation has made in a network
// namespace. Nobody may be using them. None is fine.
func Remove(hostNetns string) error {
	at, err := netns.GetFromPath(hostNetns)
	if err != nil {
		return fmt.Errorf("open the host's network namespace %s: %w", hostNetns, err)
	}
	handle, err := handleAt(at)
	if err != nil {
		return err
	}
	defer handle.Close()
	links, err := list(handle)
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		if link.Attrs().Group != Group {
			continue
		}
		// The other end of a pair goes with it.
		if err := handle.LinkDel(link); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("remove the simulated interface %s: %w", link.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}
