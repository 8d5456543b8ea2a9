package containerdconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// State says whether containerd looks into a folder.
type State string

// What may be found.
const (
	// Set: containerd looks into the folder.
	Set State = "set"
	// Unset: config_path is not set.
	Unset State = "unset"
	// Elsewhere: config_path names other folders.
	Elsewhere State = "elsewhere"
	// List: config_path names several folders, which some releases of containerd
	// take for one path.
	List State = "list"
	// Unknown: the configuration cannot be seen.
	Unknown State = "unknown"
)

// Finding is what the configuration says.
type Finding struct {
	State State
	// Message tells people what was found, and what to do.
	Message string
}

// Look reads containerd's configuration at path, and says whether containerd
// looks into folder for the settings of registries. Paths are those of the
// host: what is mounted here must be mounted there. An empty path says that
// nothing is mounted.
func Look(path, folder string) Finding {
	if path == "" {
		return Finding{Unknown, "containerd's configuration is not mounted, so it was not checked that its config_path is " + folder}
	}
	files, unseen, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Finding{Unknown, fmt.Sprintf("%s is not there, so it was not checked that containerd's config_path is %s: containerd 1 without a configuration does not look there; %s", path, folder, howToSet(2, folder))}
	}
	if err != nil {
		return Finding{Unknown, fmt.Sprintf("containerd's configuration could not be read, so it was not checked that its config_path is %s: %v", folder, err)}
	}
	f := judge(files, folder)
	if len(unseen) > 0 {
		f.Message += fmt.Sprintf("; it imports %s, which cannot be seen from here and may say otherwise", strings.Join(unseen, ", "))
		if f.State != Set {
			f.State = Unknown
		}
	}
	return f
}

func judge(files []file, folder string) Finding {
	value, where, localPull, hidden := "", "", false, ""
	for _, f := range files {
		localPull = localPull || f.registry.localPull
		switch {
		case f.registry.configPath != nil:
			value, where, hidden = *f.registry.configPath, f.path, ""
		case f.registry.there && where != "":
			hidden = f.path
		}
	}
	version := files[0].version
	if value == "" {
		return Finding{Unset, fmt.Sprintf("config_path is not set in %s, and containerd does not look into %s for every pull: %s", files[0].path, folder, howToSet(version, folder))}
	}
	folders := filepath.SplitList(value)
	same := func(path string) bool { return filepath.Clean(path) == filepath.Clean(folder) }
	switch {
	case !slices.ContainsFunc(folders, same):
		return Finding{Elsewhere, fmt.Sprintf("config_path in %s is %q, and containerd does not look into %s: have registry-trust write there (--certs-dir, and the same folder mounted), or set it to %s and restart containerd", where, value, folder, folder)}
	case hidden != "" && version < 3:
		// containerd 1 replaces a plugin's settings as a whole by those of an
		// import (mergeConfig in its services/server/config/config.go).
		return Finding{Unset, fmt.Sprintf("config_path is set in %s, but %s, which is imported later, has settings of the same plugin without it, and containerd 1 takes those alone: set it to %s there too and restart containerd", where, hidden, folder)}
	case len(folders) > 1 && !localPull:
		// https://github.com/containerd/containerd/issues/12415
		return Finding{List, fmt.Sprintf("config_path in %s is the list %q, which containerd 2.1 and later take for a single folder when they pull by their transfer service: set it to %s alone and restart containerd (containerd 1 is fine with the list)", where, value, folder)}
	}
	return Finding{Set, fmt.Sprintf("containerd looks into %s, says %s", folder, where)}
}

// howToSet is the setting for a version of the configuration.
func howToSet(version int, folder string) string {
	plugin := "io.containerd.cri.v1.images"
	switch {
	case version >= 3:
	case version == 2:
		plugin = "io.containerd.grpc.v1.cri"
	default:
		plugin = "cri"
	}
	return fmt.Sprintf("add [plugins.%q.registry] with config_path = %q, remove registry.mirrors and registry.configs if they are set there, and restart containerd once", plugin, folder)
}
