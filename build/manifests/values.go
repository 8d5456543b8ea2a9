package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	jsonyaml "sigs.k8s.io/yaml"
)

// value is one that users may set.
type value struct {
	path, comment, preset string
}

// The page that has a table of values, and where in it.
const (
	tableBegin = "<!-- values: rendered by \"make manifests\" from the comments in values.yaml -->\n"
	tableEnd   = "<!-- end of values -->\n"
)

// tabulate returns the page with the table of the chart's values.
func tabulate(page, chart string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return nil, fmt.Errorf("reading the chart's values: %w", err)
	}
	values, err := parseValues(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(chart, "values.yaml"), err)
	}
	old, err := os.ReadFile(page)
	if err != nil {
		return nil, fmt.Errorf("reading the page with the table of values: %w", err)
	}
	before, rest, begins := strings.Cut(string(old), tableBegin)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return nil, fmt.Errorf("%s: the lines %q and %q, between which the table of values belongs, are not both there", page, tableBegin, tableEnd)
	}
	var table strings.Builder
	table.WriteString("\n| value | default | meaning |\n|---|---|---|\n")
	cell := strings.NewReplacer("|", "\\|", "<", "\\<", "\n", " ")
	for _, v := range values {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", v.path, strings.ReplaceAll(v.preset, "|", "\\|"), cell.Replace(v.comment))
	}
	return []byte(before + tableBegin + table.String() + "\n" + tableEnd + after), nil
}

// parseValues returns the values that a file has with a comment for each, and
// names those that have none.
func parseValues(content []byte) ([]value, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("want one mapping")
	}
	return walk("", document.Content[0])
}

func walk(prefix string, mapping *yaml.Node) ([]value, error) {
	var (
		values []value
		errs   []error
	)
	for i := 0; i < len(mapping.Content); i += 2 {
		key, content := mapping.Content[i], mapping.Content[i+1]
		path := prefix + key.Value
		if isGroup(key, content) {
			inner, err := walk(path+".", content)
			values, errs = append(values, inner...), append(errs, err)
			continue
		}
		// What stands further up belongs to the whole file.
		paragraphs := strings.Split(key.HeadComment, "\n\n")
		comment := regexp.MustCompile(`(?m)^#\s?`).ReplaceAllString(paragraphs[len(paragraphs)-1], "")
		if comment == "" {
			errs = append(errs, fmt.Errorf("%s has no comment that says what it means", path))
			continue
		}
		preset, err := compact(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		values = append(values, value{path: path, comment: comment, preset: preset})
	}
	return values, errors.Join(errs...)
}

// isGroup tells whether the keys of a mapping are values of their own: if the
// first of them is explained, or if the mapping itself is not.
func isGroup(key, content *yaml.Node) bool {
	return content.Kind == yaml.MappingNode && len(content.Content) > 0 &&
		(key.HeadComment == "" || content.Content[0].HeadComment != "")
}

// compact returns what a value is by default, on one line.
func compact(content *yaml.Node) (string, error) {
	raw, err := yaml.Marshal(content)
	if err != nil {
		return "", fmt.Errorf("write its default: %w", err)
	}
	preset, err := jsonyaml.YAMLToJSON(raw)
	if err != nil {
		return "", fmt.Errorf("write its default: %w", err)
	}
	return string(preset), nil
}
