package containerdconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxFiles bounds how many files are read because of imports.
const maxFiles = 100

// file is what counts here of one file of the configuration.
type file struct {
	path     string
	version  int
	imports  []string
	registry section
}

// section is the settings of image pulls in one file.
type section struct {
	// there is set where the file has the plugin's section at all.
	there bool
	// configPath is nil where the file does not set it.
	configPath *string
	// localPull is set where a setting makes containerd 2 pull as containerd 1
	// did, instead of by its transfer service (CheckLocalImagePullConfigs in
	// containerd's internal/cri/config/config.go).
	localPull bool
}

// parse decodes one file.
func parse(path string, content []byte) (file, error) {
	var raw struct {
		Version int            `toml:"version"`
		Imports []string       `toml:"imports"`
		Plugins map[string]any `toml:"plugins"`
	}
	if err := toml.Unmarshal(content, &raw); err != nil {
		return file{}, fmt.Errorf("decode %s: %w", path, err)
	}
	f := file{path: path, version: raw.Version, imports: raw.Imports}
	// From version 3 on the settings of images are those of a plugin of their
	// own; containerd 2 moves older settings there.
	for _, plugin := range []string{"io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri", "cri"} {
		if settings, ok := raw.Plugins[plugin].(map[string]any); ok {
			f.registry = readSection(settings)
			break
		}
	}
	return f, nil
}

func readSection(settings map[string]any) section {
	s := section{there: true}
	registry := table(settings, "registry")
	if path, ok := registry["config_path"].(string); ok {
		s.configPath = &path
	}
	for _, of := range []map[string]any{settings, table(settings, "containerd")} {
		for _, name := range []string{"discard_unpacked_layers", "use_local_image_pull", "image_pull_with_sync_fs"} {
			set, _ := of[name].(bool)
			s.localPull = s.localPull || set
		}
	}
	s.localPull = s.localPull || len(table(registry, "configs"))+len(table(registry, "auths")) > 0
	return s
}

func table(in map[string]any, name string) map[string]any {
	t, _ := in[name].(map[string]any)
	return t
}

// read returns the files of a configuration in the order in which containerd
// takes them, later ones over earlier ones, and the paths of imports that
// cannot be seen from here.
func read(path string) (files []file, unseen []string, err error) {
	pending, known := []string{path}, map[string]bool{}
	for len(pending) > 0 {
		path, pending = pending[0], pending[1:]
		if known[path] {
			continue
		}
		if len(known) == maxFiles {
			return nil, nil, fmt.Errorf("more than %d files are imported", maxFiles)
		}
		known[path] = true
		content, err := os.ReadFile(path)
		if err != nil && len(files) > 0 && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			unseen = append(unseen, path)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		f, err := parse(path, content)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
		more, hidden := resolve(path, f.imports)
		pending, unseen = append(pending, more...), append(unseen, hidden...)
	}
	return files, unseen, nil
}

// resolve returns the files that imports name, as containerd does
// (resolveImports in cmd/containerd/server/config/config.go), and the patterns
// whose folder is not there.
func resolve(parent string, imports []string) (paths, unseen []string) {
	for _, path := range imports {
		path = filepath.Clean(path)
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(parent), path)
		}
		if !strings.Contains(path, "*") {
			paths = append(paths, path)
			continue
		}
		folder, _, _ := strings.Cut(path, "*")
		if _, err := os.Stat(filepath.Dir(folder + "x")); err != nil {
			unseen = append(unseen, path)
			continue
		}
		// A pattern that is broken matches nothing; containerd does not start
		// with it either.
		matches, _ := filepath.Glob(path)
		paths = append(paths, matches...)
	}
	return paths, unseen
}
