package packages

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// entry is one source of packages, in the terms of sources.list(5).
type entry struct {
	uris, suites []string
	options      map[string]string
}

// Sources derives, from the package configuration below root (usually "/"), the
// apt sources of another Debian release on the same mirrors, in deb822 form.
func Sources(root, release string) (string, error) {
	codename, err := debianCodename(filepath.Join(root, "etc/os-release"))
	if err != nil {
		return "", err
	}
	entries, err := readEntries(filepath.Join(root, "etc/apt"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, e := range entries {
		suites := translate(e.suites, codename, release)
		if len(suites) == 0 {
			continue
		}
		fmt.Fprintf(&out, "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n", strings.Join(e.uris, " "), strings.Join(suites, " "))
		names := make([]string, 0, len(e.options))
		for name := range e.options {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Fprintf(&out, "%s: %s\n", name, e.options[name])
		}
		out.WriteString("\n")
	}
	if out.Len() == 0 {
		return "", fmt.Errorf("no source in %s offers Debian %s, so it is not known where to get %s from: add the Debian archive there", filepath.Join(root, "etc/apt"), codename, release)
	}
	return out.String(), nil
}

// debianCodename reads the machine's release.
func debianCodename(path string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("find out which system this is: %w", err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = strings.Trim(value, `"'`)
	}
	if values["ID"] != "debian" {
		return "", fmt.Errorf("the guest is made of Debian's packages, got through apt from this machine's mirrors, and this machine is %q: use a Debian machine, or bring a warm cache", values["ID"])
	}
	if values["VERSION_CODENAME"] == "" {
		return "", fmt.Errorf("%s names no release (VERSION_CODENAME): use a released Debian", path)
	}
	return values["VERSION_CODENAME"], nil
}

// translate gives the suites of the other release that match those of the
// machine's: the release itself, its updates and its security updates.
func translate(suites []string, from, to string) []string {
	var out []string
	for _, suite := range suites {
		suite = strings.TrimSuffix(suite, "/")
		for _, name := range []string{from, "stable", "oldstable"} {
			if rest, ok := strings.CutPrefix(suite, name); ok && (rest == "" || rest == "-updates" || rest == "-security") {
				out = append(out, to+rest)
				break
			}
		}
	}
	return out
}

func readEntries(dir string) ([]entry, error) {
	paths := []string{filepath.Join(dir, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, err := filepath.Glob(filepath.Join(dir, "sources.list.d", pattern))
		if err != nil {
			return nil, fmt.Errorf("look for package sources: %w", err)
		}
		paths = append(paths, more...)
	}
	var entries []entry
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the package sources: %w", err)
		}
		if strings.HasSuffix(path, ".sources") {
			entries = append(entries, parseDeb822(string(content))...)
		} else {
			entries = append(entries, parseOneLine(string(content))...)
		}
	}
	return entries, nil
}

// kept are the options that say how a mirror is to be trusted and reached.
func kept() map[string]string {
	return map[string]string{"signed-by": "Signed-By", "trusted": "Trusted", "check-valid-until": "Check-Valid-Until"}
}

// parseOneLine reads lines such as "deb [signed-by=/k.gpg] URI suite main".
func parseOneLine(content string) []entry {
	var entries []entry
	for line := range strings.Lines(content) {
		line, _, _ = strings.Cut(line, "#")
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind != "deb" {
			continue
		}
		e := entry{options: map[string]string{}}
		rest = strings.TrimSpace(rest)
		if options, after, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]"); ok && strings.HasPrefix(rest, "[") {
			for _, option := range strings.Fields(options) {
				name, value, _ := strings.Cut(option, "=")
				if known := kept()[strings.ToLower(name)]; known != "" {
					e.options[known] = value
				}
			}
			rest = after
		}
		if fields := strings.Fields(rest); len(fields) >= 2 {
			e.uris, e.suites = fields[:1], fields[1:2]
			entries = append(entries, e)
		}
	}
	return entries
}

// parseDeb822 reads stanzas of fields; a field goes on in indented lines.
func parseDeb822(content string) []entry {
	var entries []entry
	fields, last := map[string]string{}, ""
	finish := func() {
		e := entry{uris: strings.Fields(fields["uris"]), suites: strings.Fields(fields["suites"]), options: map[string]string{}}
		for name, known := range kept() {
			if value := strings.TrimRight(fields[name], "\n"); value != "" {
				e.options[known] = value
			}
		}
		isBinary := false
		for _, kind := range strings.Fields(fields["types"]) {
			isBinary = isBinary || kind == "deb"
		}
		if isBinary && strings.TrimSpace(fields["enabled"]) != "no" {
			entries = append(entries, e)
		}
		fields, last = map[string]string{}, ""
	}
	for line := range strings.Lines(content) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case line == "":
			finish()
		case strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += "\n" + line
		default:
			name, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(name)
			fields[last] = strings.TrimSpace(value)
		}
	}
	finish()
	return entries
}
