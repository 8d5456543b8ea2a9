package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/wholefile"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

const madeSuffix = ".json"

// Notes say of which PFs the VFs were made by us, so that these, and no others,
// can be taken away when the driver is removed. A reboot takes VFs away too, so
// that a note counts for its boot only.
type Notes struct {
	// Dir is the folder of the notes, which is made when it is needed.
	Dir string
	// BootID tells one boot of the machine from another.
	BootID string
}

// note is the content of a file.
type note struct {
	BootID string `json:"bootID"`
	NumVFs int    `json:"numVFs"`
}

// write notes that we are about to make VFs.
func (n Notes) write(pf topology.Address, number int) error {
	if n.Dir == "" {
		return nil
	}
	data, err := json.Marshal(note{BootID: n.BootID, NumVFs: number})
	if err == nil {
		err = os.MkdirAll(n.Dir, 0o700)
	}
	path := n.path(pf)
	if err == nil {
		err = wholefile.Replace(path, data, wholefile.Options{Temp: path + ".tmp", Mode: 0o600})
	}
	if err != nil {
		return fmt.Errorf("note that the VFs of %s are ours: %w: see that %s can be written and has room", pf, err, n.Dir)
	}
	return nil
}

// Made returns how many VFs we made of which PF in this boot.
func (n Notes) Made() (map[topology.Address]int, error) {
	entries, err := os.ReadDir(n.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for VFs that we made: %w", err)
	}
	made := map[topology.Address]int{}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), madeSuffix)
		pf, err := topology.ParseAddress(name)
		if !ok || err != nil {
			continue
		}
		data, err := os.ReadFile(n.path(pf))
		if err != nil {
			return nil, fmt.Errorf("look whether we made the VFs of %s: %w", pf, err)
		}
		var found note
		// One that makes no sense says nothing: what may be somebody else's stays.
		if json.Unmarshal(data, &found) == nil && found.BootID == n.BootID {
			made[pf] = found.NumVFs
		}
	}
	return made, nil
}

// Forget removes a note. None is fine.
func (n Notes) Forget(pf topology.Address) error {
	if err := wholefile.Remove(n.path(pf)); err != nil {
		return fmt.Errorf("forget that the VFs of %s were ours: %w", pf, err)
	}
	return nil
}

func (n Notes) path(pf topology.Address) string {
	return filepath.Join(n.Dir, pf.String()+madeSuffix)
}
