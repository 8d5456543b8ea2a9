package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	nsfd "github.com/vishvananda/netns"
)

// The CNI plugins of these tests are this program, called by other names. Both
// keep a list of what they have given out, as those of a site do: one that was
// asked twice for the same fails, and what was not deleted stays for ever.
const (
	// nicPlugin moves the interface of a VF.
	nicPlugin = "faults-nic"
	// ipamPlugin is one that claims may name.
	ipamPlugin = "static"
)

// actAsCNIPlugin does what the CNI specification asks of a plugin, and returns
// the exit status.
func actAsCNIPlugin() int {
	result, err := cniPlugin(os.Getenv("CNI_COMMAND"))
	if err != nil {
		fmt.Printf(`{"cniVersion":"1.0.0","code":100,"msg":%q}`, err)
		return 1
	}
	fmt.Print(result)
	return 0
}

func cniPlugin(command string) (string, error) {
	var config struct {
		DeviceID string `json:"deviceID"`
	}
	raw, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = json.Unmarshal(raw, &config)
	}
	if err != nil {
		return "", err
	}
	given := filepath.Join(givenOut(filepath.Dir(os.Args[0])), os.Getenv("CNI_CONTAINERID")+"-"+os.Getenv("CNI_IFNAME"))
	moves := filepath.Base(os.Args[0]) == nicPlugin
	name, path := os.Getenv("CNI_IFNAME"), os.Getenv("CNI_NETNS")
	switch command {
	case "ADD":
		// Exclusively: whoever adds again has to delete first.
		file, err := os.OpenFile(given, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return "", err
		}
		if err := file.Close(); err != nil {
			return "", err
		}
		if !moves {
			return `{"cniVersion":"1.0.0","ips":[{"address":"192.0.2.77/24"}]}`, nil
		}
		return fmt.Sprintf(`{"cniVersion":"1.0.0","interfaces":[{"name":%q,"sandbox":%q}]}`, name, path), moveVF(config.DeviceID, path, name, true)
	case "DEL":
		if moves && path != "" {
			err = moveVF(config.DeviceID, path, name, false)
		}
		if gone := os.Remove(given); gone != nil && !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return "", err
}

// moveVF moves the interface that is the VF with a PCI address between the
// network namespace of this process and the one at path, if it is not there
// already.
func moveVF(address, path, name string, in bool) (err error) {
	here, err := nsfd.Get()
	if err != nil {
		return err
	}
	there, err := nsfd.GetFromPath(path)
	if err != nil {
		return err
	}
	from, to := here, there
	if !in {
		from, to, name = there, here, "back"+address[len(address)-len("00.0"):]
	}
	source, err := netlink.NewHandleAt(from)
	if err != nil {
		return err
	}
	links, err := source.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Attrs().Alias != "simulated "+address {
			continue
		}
		if err := source.LinkSetDown(link); err != nil {
			return err
		}
		if err := source.LinkSetName(link, name); err != nil {
			return err
		}
		return source.LinkSetNsFd(link, int(to))
	}
	if in {
		return fmt.Errorf("no interface is the VF %s", address)
	}
	return nil
}

// givenOut is the folder in which plugins keep their lists, beside their own.
func givenOut(bin string) string { return filepath.Join(filepath.Dir(bin), "given-out") }

// cniBin is the folder with the node's CNI plugins, which is made when it is
// first needed.
func (n *node) cniBin() string {
	n.t.Helper()
	bin := filepath.Join(n.dir, "cni", "bin")
	self, err := os.Executable()
	if err == nil {
		err = errors.Join(os.MkdirAll(bin, 0o755), os.MkdirAll(givenOut(bin), 0o755)) //nolint:gosec // as on a real node
	}
	for _, name := range []string{nicPlugin, ipamPlugin} {
		if link := filepath.Join(bin, name); err == nil && !exists(link) {
			err = os.Symlink(self, link)
		}
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return bin
}

// mustHaveTakenBack fails the test if a CNI plugin was not told of a deletion.
func (n *node) mustHaveTakenBack() {
	n.t.Helper()
	if left := dirEntries(n.t, givenOut(n.cniBin())); len(left) > 0 {
		n.t.Fatalf("CNI plugins still have given out: %v", left)
	}
}

// isCNIPlugin tells whether this process was started as a plugin.
func isCNIPlugin() bool {
	_, is := os.LookupEnv("CNI_COMMAND")
	return is
}
