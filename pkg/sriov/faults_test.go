package sriov

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

var (
	errCrash  = errors.New("crash")
	errInject = errors.New("injected error")
)

// life is what happens to a VF from its preparation to its release.
type life struct {
	m     *machine
	g     device.Grant
	p     *pod
	vfio  bool
	fault func(faultpoint.Step) error
}

// step runs one part of a life in a process of its own, which may crash in it.
func (l *life) step(do func(*Family) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != errCrash { //nolint:errorlint // the very value
				panic(r) //nolint:forbidigo // a failure of the code under test
			}
			err = errCrash
		}
	}()
	f := l.m.family()
	if l.fault != nil {
		f.at = l.fault
	}
	return do(f)
}

func (l *life) prepare() error {
	return l.step(func(f *Family) error {
		_, err := f.Prepare(l.m.t.Context(), l.g)
		return err
	})
}

func (l *life) attach() error {
	if l.vfio {
		return nil
	}
	return l.step(func(f *Family) error {
		_, err := f.Attach(l.m.t.Context(), l.g, l.p.Sandbox)
		return err
	})
}

func (l *life) detach() error {
	return l.step(func(f *Family) error { return f.Detach(l.m.t.Context(), l.g, l.p.Sandbox) })
}

func (l *life) release() error {
	return l.step(func(f *Family) error { return f.Release(l.m.t.Context(), l.g) })
}

func (l *life) parts() []func() error {
	return []func() error{l.prepare, l.attach, l.detach, l.attach, l.release}
}

type lifeCase struct {
	name    string
	config  func(*v1alpha1.VfConfig)
	machine func(*machine)
}

func lives() []lifeCase {
	return []lifeCase{
		{name: "own", config: func(c *v1alpha1.VfConfig) {
			c.MAC, c.MTU, c.VLAN, c.Trust, c.SpoofCheck = "02:00:00:00:00:07", ptr.To(4000), ptr.To(7), ptr.To(true), ptr.To(false)
			c.IPAM = []byte(`{"type":"host-local"}`)
		}, machine: func(m *machine) { m.kernel.Exclusive, m.kernel.PFRulesAddress = true, true; m.rdma(vf0, "mlx5_2", 2) }},
		{name: "plugins", config: func(c *v1alpha1.VfConfig) { c.NetAttachDef = &v1alpha1.NetAttachDef{Name: "blue"} }},
		{name: "vfio", config: func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeVFIO; c.VLAN = ptr.To(7) }},
		{name: "rdma", config: func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeRDMA }, machine: func(m *machine) { m.kernel.Exclusive = true; m.rdma(vf0, "mlx5_2", 2) }},
	}
}

func (c lifeCase) begin(t *testing.T) *life {
	m := newMachine(t)
	if c.machine != nil {
		c.machine(m)
	}
	return &life{m: m, g: grant("c", vf0, c.config), p: m.pod("p"), vfio: c.name == "vfio"}
}

// steps returns the steps of a whole life in their order.
func (c lifeCase) steps(t *testing.T) []faultpoint.Step {
	t.Helper()
	l := c.begin(t)
	var steps []faultpoint.Step
	l.fault = func(s faultpoint.Step) error {
		steps = append(steps, s)
		return nil
	}
	for _, part := range l.parts() {
		l.m.must(part())
	}
	return steps
}

// Wherever the plugin crashes or fails, the VF comes back as it was, whether
// its claim goes on or ends, and whether its pod is still there or not.
func TestFaultAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, c := range lives() {
		for n, step := range c.steps(t) {
			for _, how := range []string{"crash", "error"} {
				for _, then := range []string{"goes on", "ends", "namespace ends"} {
					if how == "error" && then == "namespace ends" {
						continue // what failed has been undone by then
					}
					t.Run(fmt.Sprintf("%s/%d %s/%s/%s", c.name, n, step, how, then), func(t *testing.T) {
						t.Parallel()
						oneFault(t, c, n, how, then)
					})
				}
			}
		}
	}
}

// oneFault lives a life with a fault at its nth step.
func oneFault(t *testing.T, c lifeCase, nth int, how, then string) {
	t.Helper()
	l := c.begin(t)
	before := l.m.state(vf0)
	count := 0
	l.fault = func(faultpoint.Step) error {
		count++
		switch {
		case count != nth+1:
			return nil
		case how == "crash":
			panic(errCrash) //nolint:forbidigo // nothing that is deferred may see an error
		default:
			return errInject
		}
	}
	parts := l.parts()
	failed := slices.IndexFunc(parts, func(part func() error) bool {
		err := part()
		if err != nil && !errors.Is(err, errCrash) && !errors.Is(err, errInject) {
			t.Fatal(err)
		}
		return err != nil
	})
	if failed < 0 {
		t.Fatal("the fault was not reached")
	}
	if how == "error" && l.m.kernel.Open() != 0 {
		t.Errorf("%d network namespaces are still open", l.m.kernel.Open())
	}
	l.fault = nil
	l.m.kernel.Forget() // a process that has crashed has nothing open
	switch then {
	case "goes on":
		if how == "error" && failed == 1 && l.m.describe(l.p) != "" {
			t.Errorf("an attachment that failed has left %s", l.m.describe(l.p))
		}
		goOn(t, l, parts[failed:])
	case "namespace ends":
		l.m.kernel.End(l.p.Namespace)
	}
	l.m.must(l.release())
	l.m.clean(vf0, before)
}

func goOn(t *testing.T, l *life, parts []func() error) {
	t.Helper()
	// Kubelet and the runtime begin anew, also after a crash of the release.
	l.m.must(l.prepare())
	for _, part := range parts {
		l.m.must(part())
	}
	l.m.must(l.prepare())
	l.m.must(l.attach())
	if !l.vfio && l.m.describe(l.p) == "" {
		t.Error("the pod has not got the VF")
	}
}

// Every step that has a name is reached, but for those that need a broken file.
func TestEveryStepIsReached(t *testing.T) {
	t.Parallel()
	var reached []faultpoint.Step
	for _, c := range lives() {
		reached = append(reached, c.steps(t)...)
	}
	for _, step := range faultpoint.VFSteps() {
		switch step {
		case faultpoint.VFJournalHalfWritten, faultpoint.VFJournalRebuilt:
			continue // see the tests of journals
		}
		if !slices.Contains(reached, step) {
			t.Errorf("no test reaches %s", step)
		}
	}
}

// After every change the plugin can be made to fail, or what a crash leaves
// there would not be tested.
func TestEveryChangeCanBeFollowedByAFault(t *testing.T) {
	t.Parallel()
	changes := map[string]bool{
		"journal.Save": false, "journal.Delete": false, "drivers.Bind": false, "host.Move": false, "ns.Move": false,
		"Networks.Add": false,
	}
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
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
				checkChanges(t, files, f, changes)
			}
		}
	}
	for change, seen := range changes {
		if !seen {
			t.Errorf("there is no %s: was it renamed?", change)
		}
	}
}

func checkChanges(t *testing.T, files *token.FileSet, f *ast.FuncDecl, changes map[string]bool) {
	t.Helper()
	last := token.NoPos // of the last point at which the plugin can fail
	ast.Inspect(f, func(node ast.Node) bool {
		if call, ok := node.(*ast.CallExpr); ok {
			if _, name := called(call); name == "at" {
				last = call.Pos()
			}
		}
		return true
	})
	ast.Inspect(f, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok {
			return true
		}
		on, name := called(call)
		change := on + "." + name
		if _, ok := changes[change]; !ok {
			return true
		}
		changes[change] = true
		// The caller has a point after the one, and there is nothing to follow the
		// other.
		if f.Name.Name == "restoreDriver" || f.Name.Name == "Release" {
			return true
		}
		if last < call.Pos() {
			t.Errorf("%s: no point at which the plugin can be made to fail follows %s in %s", files.Position(call.Pos()), change, f.Name.Name)
		}
		return true
	})
}

// called returns what a call is called on and the name of the function.
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
