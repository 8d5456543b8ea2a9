package main

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// header is how each rendered file begins.
const header = "# Generated from deployments/helm/eks-hybrid-dra by \"make manifests\": change that.\n"

// source is how helm tells from which template a document is.
const source = "# Source: eks-hybrid-dra/templates/"

// folders are those below root that get rendered manifests.
func folders(root string) []folder {
	trust := func(template string) bool { return path.Dir(template) == "registry-trust" }
	return []folder{{
		path:   filepath.Join(root, "base"),
		wanted: func(template string) bool { return !trust(template) },
		kustomization: `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
# To run another image than the one that "make image" builds, set it in a
# kustomization of your own that lists this folder as a resource:
#   images:
#   - name: localhost/eks-hybrid-dra
#     newName: harbor.example.com/eks/eks-hybrid-dra
#     newTag: v0.1.0
resources:
- namespace.yaml
`,
	}, {
		path: filepath.Join(root, "registry-trust", "base"),
		values: []string{
			"--set=hybrid.registry.enabled=true",
			"--set=hybrid.registry.existingConfigMap=" + release + "-registry-trust",
			"--set=hybrid.registry.existingSecret=" + release + "-registry-trust",
		},
		wanted: trust,
		kustomization: `# The namespace is that of the driver's manifests, and is not part of these, so
# that deleting these does not delete the driver with it.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
`,
	}}
}

// kustomize lists the files of the folder.
func (f folder) kustomize(files map[string][]byte) []byte {
	var b strings.Builder
	b.WriteString(header + f.kustomization)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b.WriteString("- " + name + "\n")
	}
	return []byte(b.String())
}

// split makes a file of the documents of each template.
func split(rendered string, wanted func(template string) bool) (map[string][]byte, error) {
	documents := map[string][]string{}
	// helm begins each document with this line.
	for document := range strings.SplitSeq("\n"+rendered, "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		rest, ok := strings.CutPrefix(document, source)
		if !ok {
			return nil, fmt.Errorf("a document of helm does not begin with %q: %.60q", source, document)
		}
		template, body, _ := strings.Cut(rest, "\n")
		if wanted(template) {
			documents[template] = append(documents[template], plain(body))
		}
	}
	files := map[string][]byte{}
	for template, parts := range documents {
		files[strings.ReplaceAll(template, "/", "-")] = []byte(header + strings.Join(parts, "---\n"))
	}
	return files, nil
}

// plain takes away what only holds for a release of the chart.
func plain(document string) string {
	chart := regexp.MustCompile(`(?m)^ +(helm\.sh/chart|app\.kubernetes\.io/(managed-by|version)): .*\n`)
	return chart.ReplaceAllString(strings.TrimRight(document, "\n")+"\n", "")
}
