package render

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// documented are the values in the table of docs/chart.md, with their defaults.
// "make manifests" renders that from values.yaml.
func documented(t *testing.T) map[string]any {
	t.Helper()
	page, err := os.ReadFile(root + "/docs/chart.md")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `(.+?)` \\| .+ \\|$").FindAllStringSubmatch(string(page), -1) {
		var preset any
		if err := json.Unmarshal([]byte(strings.ReplaceAll(row[2], `\|`, "|")), &preset); err != nil {
			t.Fatalf("the default of %s: %v", row[1], err)
		}
		values[row[1]] = preset
	}
	if len(values) < 50 {
		t.Fatalf("docs/chart.md has only %d values in its table", len(values))
	}
	return values
}

func TestWhatIsRenderedIsUpToDate(t *testing.T) {
	command := exec.CommandContext(t.Context(), "go", "run", "./build/manifests", "--check", "--helm", helmProgram(t))
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// schemaNode is a part of values.schema.json.
type schemaNode struct {
	Ref                  string                 `json:"$ref"`
	AdditionalProperties any                    `json:"additionalProperties"`
	Properties           map[string]*schemaNode `json:"properties"`
	Items                *schemaNode            `json:"items"`
	Defs                 map[string]*schemaNode `json:"$defs"`
}

func valuesSchema(t *testing.T) *schemaNode {
	t.Helper()
	content, err := os.ReadFile(chart + "/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	top := &schemaNode{}
	if err := json.Unmarshal(content, top); err != nil {
		t.Fatal(err)
	}
	top.resolve(top.Defs)
	return top
}

// resolve puts what a node refers to in its place.
func (n *schemaNode) resolve(defs map[string]*schemaNode) {
	if name, ok := strings.CutPrefix(n.Ref, "#/$defs/"); ok {
		*n = *defs[name]
	}
	for _, property := range n.Properties {
		property.resolve(defs)
	}
	if n.Items != nil {
		n.Items.resolve(defs)
	}
}

// leaves are the values that a schema knows.
func (n *schemaNode) leaves(t *testing.T, path string, documented map[string]any) []string {
	t.Helper()
	if _, ok := documented[path]; ok || len(n.Properties) == 0 {
		return []string{path}
	}
	if n.AdditionalProperties != false {
		t.Errorf("the schema lets %s have values that there are not", path)
	}
	var all []string
	for name, property := range n.Properties {
		all = append(all, property.leaves(t, strings.TrimPrefix(path+"."+name, "."), documented)...)
	}
	return all
}

func TestSchemaKnowsTheValuesThatThereAre(t *testing.T) {
	values := documented(t)
	known := valuesSchema(t).leaves(t, "", values)
	known = slices.DeleteFunc(known, func(path string) bool { return path == "global" })
	slices.Sort(known)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(values)), known); diff != "" {
		t.Errorf("values of values.yaml and of values.schema.json (-values +schema):\n%s", diff)
	}
}

// nodeConfig is passed on as it is, so its schema must be that of the plugin's.
func TestSchemaOfTheNodeConfigIsThatOfThePlugin(t *testing.T) {
	want := fields(reflect.TypeFor[v1alpha1.NodeConfig](), "")
	got := valuesSchema(t).Properties["nodeConfig"].fields("")
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-plugin +schema):\n%s", diff)
	}
}

func fields(of reflect.Type, path string) []string {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct {
		return []string{path}
	}
	var all []string
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" { // apiVersion and kind, which the chart fills in
			continue
		}
		all = append(all, fields(field.Type, path+"."+name)...)
	}
	return all
}

func (n *schemaNode) fields(path string) []string {
	for n.Items != nil {
		n = n.Items
	}
	if len(n.Properties) == 0 {
		return []string{path}
	}
	var all []string
	for name, property := range n.Properties {
		all = append(all, property.fields(path+"."+name)...)
	}
	return all
}

func TestNodeConfigIsWhatThePluginReads(t *testing.T) {
	helmProgram(t)
	checksums := map[string]string{} // of contents
	for name, set := range sets() {
		list := set.objects(t)
		fullName := set.fullName()
		content := into[corev1.ConfigMap](t, list, "ConfigMap", fullName).Data["config.yaml"]
		decoded, err := v1alpha1.DecodeNodeConfig([]byte(content))
		if err != nil {
			t.Errorf("%s: %v in\n%s", name, err, content)
			continue
		}
		if name == "everything" && (len(decoded.SRIOV.Selectors) != 1 || !decoded.NCCL.SetIBHCA || decoded.Managed.Settle != "1m") {
			t.Errorf("the plugin reads %+v", decoded)
		}
		// Pods are replaced when it changes, and only then.
		sum := podAnnotations(t, list.get(t, "DaemonSet", fullName+"-kubelet-plugin"))["checksum/config"]
		for other, known := range checksums {
			if (other == content) != (known == sum) {
				t.Errorf("checksums %s and %s of\n%s\nand\n%s", known, sum, other, content)
			}
		}
		checksums[content] = sum
	}
	if len(checksums) < 2 {
		t.Error("all sets have one configuration")
	}
}
