package faults

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
)

// changes are the calls that change what outlives the process, by the name of
// what they are called on.
var changes = map[string][]string{
	"store":    {"Take", "Update", "Free", "PutBack", "Save", "Delete", "SetAside"},
	"cdi":      {"Write", "Remove"},
	"metadata": {"Remove"},
	"family":   {"Prepare", "Release", "Attach", "Detach"},
}

// stateFolders have the code that keeps what outlives the process.
func stateFolders() []string {
	return []string{"pkg/driver", "pkg/driver/claimstore", "pkg/driver/cdifiles", "pkg/driver/metadatafiles", "pkg/deviceplugin"}
}

// parsePackage returns the functions of a package's files, tests left out.
func parsePackage(t *testing.T, files *token.FileSet, dir string) []*ast.FuncDecl {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(bed.root, dir, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no source in %s: %v", dir, err)
	}
	var functions []*ast.FuncDecl
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				functions = append(functions, f)
			}
		}
	}
	return functions
}

// called returns what a call is called on and the name of the function:
// "store", "Take" for d.store.Take(...).
func called(call *ast.CallExpr) (on, name string) {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	switch x := selector.X.(type) {
	case *ast.Ident:
		on = x.Name
	case *ast.SelectorExpr:
		on = x.Sel.Name
	}
	return on, selector.Sel.Name
}

// points returns where in a piece of code the program can be made to fail, by
// step.
func points(code ast.Node) map[string][]token.Pos {
	found := map[string][]token.Pos{}
	ast.Inspect(code, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok {
			return true
		}
		if on, name := called(call); on != "faultpoint" || name != "At" || len(call.Args) != 1 {
			return true
		}
		if step, ok := call.Args[0].(*ast.SelectorExpr); ok {
			found[step.Sel.Name] = append(found[step.Sel.Name], call.Pos())
		}
		return true
	})
	return found
}

func hasPoint(f ast.Node, is func(token.Pos) bool) bool {
	for _, all := range points(f) {
		if slices.ContainsFunc(all, is) {
			return true
		}
	}
	return false
}

// After every change the plugin can be made to fail, or what a crash leaves
// there would not be tested.
func TestEveryChangeCanBeFollowedByAFault(t *testing.T) {
	t.Parallel()
	files := token.NewFileSet()
	seen := map[string]bool{}
	for _, f := range append(parsePackage(t, files, "pkg/driver"), parsePackage(t, files, "pkg/deviceplugin")...) {
		ast.Inspect(f, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			on, name := called(call)
			if !slices.Contains(changes[on], name) {
				return true
			}
			seen[on+"."+name] = true
			if !hasPoint(f, func(p token.Pos) bool { return p > call.Pos() }) {
				t.Errorf("%s: no faultpoint.At follows %s.%s in %s", files.Position(call.Pos()), on, name, f.Name.Name)
			}
			return true
		})
	}
	for on, names := range changes {
		for _, name := range names {
			if !seen[on+"."+name] {
				t.Errorf("pkg/driver calls no %s.%s: was it renamed?", on, name)
			}
		}
	}
}

// Where a file is written and then put in its place, the plugin can be made to
// fail in between.
func TestEveryHalfWrittenFileCanBeLeft(t *testing.T) {
	t.Parallel()
	files := token.NewFileSet()
	for _, dir := range stateFolders() {
		written := 0
		for _, f := range parsePackage(t, files, dir) {
			ast.Inspect(f, func(node ast.Node) bool {
				call, ok := node.(*ast.CallExpr)
				if !ok {
					return true
				}
				on, name := called(call)
				switch {
				case on == "os" && slices.Contains([]string{"WriteFile", "Create", "CreateTemp"}, name):
					t.Errorf("%s: os.%s in %s: wholefile writes files such that the plugin can be made to fail on the way", files.Position(call.Pos()), name, f.Name.Name)
				case on == "wholefile" && slices.Contains([]string{"Replace", "Update", "Write"}, name):
					written++
					if len(points(call)) == 0 {
						t.Errorf("%s: no faultpoint.At in what wholefile.%s is given in %s", files.Position(call.Pos()), name, f.Name.Name)
					}
				}
				return true
			})
		}
		if written == 0 && dir != "pkg/driver" { // which leaves that to the others
			t.Errorf("%s writes no file: was wholefile renamed?", dir)
		}
	}
}

// Every step that has a name is a place in the program, and on the list.
func TestEveryStepIsAPlace(t *testing.T) {
	t.Parallel()
	constants := stepConstants(t)
	if diff := cmp.Diff(slices.Sorted(maps.Values(constants)), sortedSteps()); diff != "" {
		t.Errorf("a list of steps leaves some out, or has others (-constants +Steps):\n%s", diff)
	}
	files := token.NewFileSet()
	used := map[string]bool{}
	for _, dir := range stateFolders() {
		for _, f := range parsePackage(t, files, dir) {
			for name := range points(f) {
				used[name] = true
			}
		}
	}
	for name := range constants {
		if !used[name] {
			t.Errorf("no faultpoint.At(faultpoint.%s) in %s", name, stateFolders())
		}
	}
}

// stepConstants returns the steps by the names of their constants.
func stepConstants(t *testing.T) map[string]string {
	t.Helper()
	constants := map[string]string{}
	for _, name := range []string{"steps.go", "attach_steps.go", "deviceplugin_steps.go"} {
		path := filepath.Join(bed.root, "internal", "faultpoint", name)
		parsed, err := parser.ParseFile(token.NewFileSet(), path, mustRead(t, path), parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			if value, ok := spec.Values[0].(*ast.BasicLit); ok {
				constants[spec.Names[0].Name] = strings.Trim(value.Value, `"`)
			}
			return true
		})
	}
	return constants
}

func sortedSteps() []string {
	var all []string
	for _, step := range slices.Concat(faultpoint.Steps(), faultpoint.AttachSteps(), faultpoint.DevicePluginSteps()) {
		all = append(all, string(step))
	}
	slices.Sort(all)
	return all
}

// The page for admins names the tests that show what it says.
func TestPageNamesTests(t *testing.T) {
	t.Parallel()
	page := mustRead(t, filepath.Join(bed.root, "docs", "what-happens-when.md"))
	tests := map[string]bool{}
	for _, dir := range []string{"test", "pkg"} {
		err := filepath.WalkDir(filepath.Join(bed.root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(mustRead(t, path), -1) {
				tests[m[1]] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(page, -1)
	if len(named) == 0 {
		t.Error("the page names no test")
	}
	for _, m := range named {
		if !tests[m[1]] {
			t.Errorf("the page names %s, which is no test", m[1])
		}
	}
}
