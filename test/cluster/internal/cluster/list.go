package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/namespace"
)

// Running returns the names of the clusters that run, wholly or in part, whose
// state folders lie in the folder.
func Running(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("look for clusters: %w", err)
	}
	var names []string
	for _, entry := range entries {
		state := config.State{Dir: filepath.Join(folder, entry.Name())}
		// A start that was cut off early wrote no settings yet.
		if runs(state) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

func runs(state config.State) bool {
	for _, role := range config.Roles() {
		if _, ok := namespace.Find(state, role); ok {
			return true
		}
	}
	return false
}

// notRunning says that the cluster is not up, and which others are.
func (c *Cluster) notRunning() error {
	return fmt.Errorf("the cluster %s is not running: start it with `cluster up --name %s`, or choose another by --name; %s", c.Name, c.Name, c.others())
}

// others says which clusters run beside this one.
func (c *Cluster) others() string {
	names, err := Running(filepath.Dir(c.State.Dir))
	if err != nil {
		return fmt.Sprintf("Which others run is not known: %v.", err)
	}
	if len(names) == 0 {
		return "No cluster runs."
	}
	return "Clusters that run: " + strings.Join(names, ", ") + "."
}
