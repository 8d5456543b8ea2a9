package faults

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
)

// servingGPUs gives an instance a configuration by which pods have GPUs as an
// extended resource, and forClaims one by which they are for claims.
func servingGPUs() option { return configured("devicePlugin: {kinds: [gpu], settle: 1ms}") }

func forClaims() option { return configured("devicePlugin: {kinds: []}") }

func configured(content string) option {
	return func(p *plugin) {
		path := filepath.Join(p.node.dir, "config.yaml")
		p.node.write(path, "apiVersion: resource.eks-hybrid-dra/v1alpha1\nkind: NodeConfig\n"+content+"\n")
		p.cmd.Args = append(p.cmd.Args, "--config="+path)
	}
}

// devicePluginScenes are the steps at which the plugin fails, by when that is.
type devicePluginScenes struct {
	// taking is when it first serves the GPUs, allocating when a container is to
	// have one, using when a pod has it, and freeing when all go to claims.
	taking, allocating, using, freeing []faultpoint.Step
}

func allDevicePluginScenes() devicePluginScenes {
	return devicePluginScenes{
		taking:     []faultpoint.Step{faultpoint.DevicePluginNoted, faultpoint.DevicePluginSetAside, faultpoint.DevicePluginRepaired, faultpoint.DevicePluginTaken, faultpoint.DevicePluginPrepared, faultpoint.DevicePluginFile, faultpoint.DevicePluginFiles},
		allocating: []faultpoint.Step{faultpoint.DevicePluginGiven, faultpoint.DevicePluginPrepared, faultpoint.DevicePluginFiles},
		using:      []faultpoint.Step{faultpoint.DevicePluginUseNoted},
		freeing:    []faultpoint.Step{faultpoint.DevicePluginReleased, faultpoint.DevicePluginInfoGone, faultpoint.DevicePluginFreed, faultpoint.DevicePluginFilesGone},
	}
}

// Wherever the plugin is killed or fails while it serves extended resources, pods
// get and keep their GPUs, and in the end claims can have all of them.
func TestEveryStepOfTheDevicePlugin(t *testing.T) {
	all := allDevicePluginScenes()
	play := func(when string, steps []faultpoint.Step, scene func(*devicePluginNode, fault)) {
		for _, step := range steps {
			for _, how := range []string{"kill", "error"} {
				t.Run(fmt.Sprintf("%s at %s of %s", how, step, when), func(t *testing.T) {
					t.Parallel()
					n := newNode(t)
					scene(&devicePluginNode{n, n.startKubelet()}, fault{step: step, how: how})
				})
			}
		}
	}
	play("taking", all.taking, (*devicePluginNode).failTaking)
	play("allocating", all.allocating, (*devicePluginNode).failAllocating)
	play("using", all.using, (*devicePluginNode).failUsing)
	play("freeing", all.freeing, (*devicePluginNode).failFreeing)
}

func TestEveryStepOfTheDevicePluginHasAScene(t *testing.T) {
	all := allDevicePluginScenes()
	tested := map[faultpoint.Step]bool{}
	for _, steps := range [][]faultpoint.Step{all.taking, all.allocating, all.using, all.freeing} {
		for _, step := range steps {
			tested[step] = true
		}
	}
	for _, step := range faultpoint.DevicePluginSteps() {
		if !tested[step] {
			t.Errorf("step %s is not among the scenes", step)
		}
	}
}

// devicePluginNode is a node on which pods get GPUs as an extended resource.
type devicePluginNode struct {
	*node
	kubelet *kubelet
}

// outlive waits for the fault, and returns the instance that goes on after it.
func (n *devicePluginNode) outlive(p *plugin, f fault, options ...option) *plugin {
	n.t.Helper()
	if f.how == "kill" {
		p.mustHaveBeenKilled()
		p.mustHaveFailed()
		n.kubelet.hangUp()
		return n.launch(options...)
	}
	p.waitLog(f.text())
	p.mustHaveFailed()
	return p
}

func (n *devicePluginNode) failTaking(f fault) {
	n.t.Helper()
	p := n.launch(with(f), servingGPUs())
	if f.step == faultpoint.DevicePluginSetAside || f.step == faultpoint.DevicePluginRepaired {
		n.kubelet.oneOf(gpus)
		n.write(n.holding(), "{")
	}
	p = n.outlive(p, f, servingGPUs())
	n.mustRun(n.kubelet.oneOf(gpus))
	n.end(p)
}

func (n *devicePluginNode) failAllocating(f fault) {
	n.t.Helper()
	// A start passes most of these steps, too.
	p := n.launch(with(f), func(p *plugin) { n.remove(p.failure(f)) }, servingGPUs())
	id := n.kubelet.oneOf(gpus)
	n.write(p.failure(f), "")
	if _, err := n.kubelet.allocate(id); err != nil { // or not, if a look at all devices has failed
		if f.how == "error" {
			mustSay(n.t, err, f.text())
		}
	}
	p = n.outlive(p, f, servingGPUs())
	n.kubelet.oneOf(gpus)
	n.mustRun(id)
	n.end(p)
}

// failure is the file that is there until a fault has happened.
func (p *plugin) failure(f fault) string { return filepath.Join(p.once, string(f.step)) }

func (n *devicePluginNode) failUsing(f fault) {
	n.t.Helper()
	p := n.launch(with(f), servingGPUs())
	n.mustRun(n.kubelet.oneOf(gpus))
	p = n.outlive(p, f, servingGPUs())
	n.kubelet.oneOf(gpus)
	n.end(p)
}

func (n *devicePluginNode) failFreeing(f fault) {
	n.t.Helper()
	p := n.launch(servingGPUs())
	n.kubelet.oneOf(gpus)
	p.stop()
	n.finish(n.outlive(n.launch(with(f), forClaims()), f, forClaims()))
}

// mustRun has a pod use a device, by what its container is told.
func (n *devicePluginNode) mustRun(id string) {
	n.t.Helper()
	var name string
	eventually(n.t, "given", func() (err error) {
		name, err = n.kubelet.allocate(id)
		return err
	})
	spec := mustRead(n.t, filepath.Join(n.cdiDir(), driverName+"_deviceplugin-gpu.json"))
	kind, device, _ := strings.Cut(name, "=")
	if !strings.Contains(spec, fmt.Sprintf("%q", kind)) || !strings.Contains(spec, fmt.Sprintf("%q", device)) {
		n.t.Fatalf("the CDI spec does not have %s:\n%s", name, spec)
	}
	n.kubelet.use(id, "pod")
}

// end has the GPUs go to claims while a pod has one of them, and then that one.
func (n *devicePluginNode) end(p *plugin) {
	n.t.Helper()
	if p.running() {
		p.stop()
	}
	p = n.launch(forClaims())
	eventually(n.t, "free but for the pod's", func() error {
		if left := n.held(); len(left) != 1 {
			return fmt.Errorf("held: %q", left)
		}
		return nil
	})
	p.stop()
	n.kubelet.useNothing()
	// As after a reboot: what kubelet was given a moment ago it may not say yet.
	boot := strings.TrimSpace(mustRead(n.t, "/proc/sys/kernel/random/boot_id"))
	for _, path := range n.held() {
		n.write(path, strings.ReplaceAll(mustRead(n.t, path), boot, "former"))
	}
	n.finish(n.launch(forClaims()))
}

// finish waits until claims can have everything.
func (n *devicePluginNode) finish(p *plugin) {
	n.t.Helper()
	p.register()
	n.waitClean()
	p.mustGiveAll()
	p.stop()
	n.mustBeClean()
}

// held returns the files that say who has a GPU.
func (n *devicePluginNode) held() []string {
	n.t.Helper()
	paths, err := filepath.Glob(filepath.Join(n.dataDir(), "devices", "*.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	return paths
}

// holding returns one of them.
func (n *devicePluginNode) holding() string {
	n.t.Helper()
	held := n.held()
	if len(held) == 0 {
		n.t.Fatal("nothing is held")
	}
	return held[0]
}
