package render

import (
	"strconv"
	"strings"
	"testing"
)

// Wrong values are refused in words that name the value, and what to do where
// that is not plain.
func TestWrongValuesAreRefused(t *testing.T) {
	helmProgram(t)
	for name, test := range map[string]struct {
		values, want string
	}{
		"CPUs":                         {"driver: {enableCPU: true}", "driver.enableCPU is true, but this release has no CPUs to give: leave it out"},
		"nothing to serve":             {"driver: {enableGPU: false}", "driver.enableGPU and driver.enableSRIOV are both false: nothing is left to serve"},
		"a name that is none":          {"driver: {name: My_Driver}", "at '/driver/name': 'My_Driver' does not match pattern"},
		"a value that is none":         {"driver: {enableGpu: true}", "at '/driver': additional properties 'enableGpu' not allowed"},
		"a section that is none":       {"kubeletplugin: {}", "additional properties 'kubeletplugin' not allowed"},
		"text for a number":            {`controller: {replicas: "2"}`, "at '/controller/replicas': got string, want integer"},
		"a machine that is none":       {"simulate: dgx-a100", "at '/simulate': value must be one of '', 'dgx-h100', 'dgx-h200'"},
		"a time without a unit":        {`controller: {gangTimeout: "300"}`, "at '/controller/gangTimeout': '300' does not match pattern"},
		"a folder that is relative":    {"kubeletPlugin: {kubeletRoot: var/lib/kubelet}", "at '/kubeletPlugin/kubeletRoot': 'var/lib/kubelet' does not match pattern"},
		"a tag in the repository":      {"image: {repository: registry.example.com/x@sha256}", "at '/image/repository'"},
		"a short digest":               {`image: {digest: "sha256:12"}`, "at '/image/digest'"},
		"a configuration's field":      {"nodeConfig: {sriov: {selectors: [{vendor: x}]}}", "at '/nodeConfig/sriov/selectors/0': additional properties 'vendor' not allowed"},
		"a PCI address that is none":   {"nodeConfig: {pairing: {pairs: [{gpu: 1b:00.0}]}}", "at '/nodeConfig/pairing/pairs/0/gpu': '1b:00.0' does not match pattern"},
		"a RuntimeClass with SR-IOV":   {"{driver: {enableSRIOV: true}, kubeletPlugin: {runtimeClassName: nvidia}}", `kubeletPlugin.runtimeClassName is "nvidia", but driver.enableSRIOV is true: moving virtual functions takes a privileged container`},
		"managed devices for nobody":   {"{nodeConfig: {managed: {kinds: [gpu, gpu-vf]}}, controller: {enabled: false}}", "nodeConfig.managed.kinds is [gpu, gpu-vf], but controller.enabled is false: nobody would give these devices to claims"},
		"a resource of two classes":    {"deviceClasses: {extendedResourceNames: {gpu: nvidia.com/gpu, managed-gpu: nvidia.com/gpu}}", `deviceClasses.extendedResourceNames.gpu and .managed-gpu are both "nvidia.com/gpu": only one class can serve a name`},
		"a resource of no class":       {"deviceClasses: {managed: {enabled: false}, extendedResourceNames: {managed-gpu: nvidia.com/gpu}}", `deviceClasses.extendedResourceNames.managed-gpu is "nvidia.com/gpu", but deviceClasses.managed.enabled is false`},
		"a resource without a domain":  {"deviceClasses: {extendedResourceNames: {gpu: gpu}}", "at '/deviceClasses/extendedResourceNames/gpu': 'gpu' does not match pattern"},
		"a class that is none":         {"deviceClasses: {extendedResourceNames: {mig: nvidia.com/mig}}", "additional properties 'mig' not allowed"},
		"no registry":                  {"hybrid: {registry: {enabled: true}}", "hybrid.registry.enabled is true, but no registry is named: list them in hybrid.registry.registries"},
		"a registry's URL":             {"hybrid: {registry: {enabled: true, registries: [{host: https://harbor.example.com}]}}", "at '/hybrid/registry/registries/0/host': 'https://harbor.example.com' does not match pattern"},
		"a certificate that is absent": {"hybrid: {registry: {enabled: true, registries: [{host: harbor.example.com}]}}", `hybrid.registry.registries[0] "harbor.example.com" needs the certificate "ca.crt", which is not in hybrid.registry.caFiles: give it by --set-file 'hybrid.registry.caFiles.ca\.crt=<file>'`},
		"a certificate that is none":   {"hybrid: {registry: {caFiles: {ca.crt: ca.crt}}}", "at '/hybrid/registry/caFiles/ca.crt': 'ca.crt' does not match pattern '-----BEGIN '"},
		"a toleration's field":         {"kubeletPlugin: {tolerations: [{keys: x}]}", "at '/kubeletPlugin/tolerations/0': additional properties 'keys' not allowed"},
		"a port that is none":          {"networkPolicy: {apiServerPorts: [70000]}", "at '/networkPolicy/apiServerPorts/0': maximum: got 70,000, want 65,535"},
		"a priority of the system's":   {"priorityClass: {value: 2000000000}", "at '/priorityClass/value': maximum"},
		"a section without anything":   {"nodeConfig:", "missing property 'nodeConfig'"},
		"a part without anything":      {"hybrid: {registry: {pullSecret: null}}", "at '/hybrid/registry': missing property 'pullSecret'"},
		"a repository with a tag":      {"image: {repository: registry.example.com:5000/x:v1}", "at '/image/repository': 'registry.example.com:5000/x:v1' does not match pattern"},
		"drains for nobody":            {"controller: {podDisruptionBudget: {maxUnavailable: 0%}}", "at '/controller/podDisruptionBudget/maxUnavailable': '0%' does not match pattern"},
		"a resource without its GPUs":  {"{driver: {enableGPU: false, enableSRIOV: true}, deviceClasses: {extendedResourceNames: {gpu: nvidia.com/gpu}}}", `deviceClasses.extendedResourceNames.gpu is "nvidia.com/gpu", but driver.enableGPU is false, so that the class has no devices: set it to true, or leave the name out`},
		"a resource without its VFs":   {"deviceClasses: {extendedResourceNames: {managed-gpu-vf: example.com/pair}}", `extendedResourceNames.managed-gpu-vf is "example.com/pair", but driver.enableSRIOV is false`},
		"managed VFs without VFs":      {"nodeConfig: {managed: {kinds: [gpu-vf]}}", `nodeConfig.managed.kinds has "gpu-vf", but driver.enableSRIOV is false, so that there are no such devices`},
		"resources of GPUs without":    {"{driver: {enableGPU: false, enableSRIOV: true}, nodeConfig: {devicePlugin: {kinds: [gpu]}}}", `nodeConfig.devicePlugin.kinds has "gpu", but driver.enableGPU is false`},
		"resources of VFs without":     {"nodeConfig: {devicePlugin: {kinds: [vf]}}", `nodeConfig.devicePlugin.kinds has "vf", but driver.enableSRIOV is false`},
		"VFs of no resource":           {"{driver: {enableSRIOV: true}, nodeConfig: {devicePlugin: {kinds: [vf]}}}", "nodeConfig.devicePlugin.vfResources is empty, so that nobody could ask for them"},
		"a kind on both sides":         {"nodeConfig: {managed: {kinds: [gpu]}, devicePlugin: {kinds: [gpu]}}", `nodeConfig.devicePlugin.kinds has "gpu", but nodeConfig.managed.kinds is [gpu]`},
		"a part of a pair":             {"{driver: {enableSRIOV: true}, nodeConfig: {managed: {kinds: [gpu-vf]}, devicePlugin: {kinds: [gpu]}}}", "nodeConfig.managed.kinds is [gpu-vf], and gives the same devices to the controller"},
		"a kind twice":                 {"nodeConfig: {devicePlugin: {kinds: [gpu, gpu]}}", "at '/nodeConfig/devicePlugin/kinds': items at 0 and 1 are equal"},
		"a settling time of no time":   {"nodeConfig: {managed: {settle: soon}}", "at '/nodeConfig/managed/settle': 'soon' does not match pattern"},
		"another without a unit":       {`nodeConfig: {devicePlugin: {settle: "30"}}`, "at '/nodeConfig/devicePlugin/settle': '30' does not match pattern"},
		"EKS' label":                   {"nodeConfig: {nodeLabels: {enabled: true, gpu: eks.amazonaws.com/compute-type}}", `nodeConfig.nodeLabels.gpu is "eks.amazonaws.com/compute-type", but labels of eks.amazonaws.com are the platform's`},
		"Kubernetes' label":            {"nodeConfig: {nodeLabels: {gpuCount: topology.kubernetes.io/zone}}", `nodeConfig.nodeLabels.gpuCount is "topology.kubernetes.io/zone", but labels of topology.kubernetes.io are the platform's`},
		"one label for two things":     {"nodeConfig: {nodeLabels: {gpuCount: gpu}}", `nodeConfig.nodeLabels.gpu and .gpuCount are both "gpu"`},
		"a plugin that chooses itself": {"{nodeConfig: {nodeLabels: {enabled: true}}, kubeletPlugin: {nodeSelector: {gpu: h200}}}", `nodeConfig.nodeLabels.gpu is "gpu", by which kubeletPlugin.nodeSelector chooses the nodes of the plugin`},
		"SELinux for nobody":           {"kubeletPlugin: {seLinuxOptions: {type: spc_t}}", "kubeletPlugin.seLinuxOptions is set, but kubeletPlugin.runtimeClassName is not"},
		"metrics for some":             {"networkPolicy: {enabled: false, metricsFrom: [{podSelector: {}}]}", "networkPolicy.metricsFrom says who may read metrics, but networkPolicy.enabled is false, so that everybody may"},
		"a flag that has a value":      {"kubeletPlugin: {extraArgs: [--attach-wait=30s, --driver-name=x]}", `kubeletPlugin.extraArgs[1] is "--driver-name=x", but that flag is set by the chart: set driver.name instead`},
		"a level that has a value":     {"controller: {extraArgs: [-v4]}", `controller.extraArgs[0] is "-v4", but that flag is set by the chart: set controller.logLevel instead`},
		"a flag of the chart's":        {"hybrid: {registry: {extraArgs: ['--http-address=:80']}}", `hybrid.registry.extraArgs[0] is "--http-address=:80", but that flag is set by the chart: leave it out`},
		"a variable of the chart's":    {"controller: {extraEnv: [{name: POD_NAMESPACE, value: x}]}", "controller.extraEnv[0] is POD_NAMESPACE, but that variable is set by the chart: leave it out"},
		"a label of the chart's":       {"kubeletPlugin: {podLabels: {app.kubernetes.io/name: x}}", `kubeletPlugin.podLabels has "app.kubernetes.io/name", by which the chart finds its pods`},
		"an argument that is none":     {"controller: {extraArgs: [workers=4]}", "at '/controller/extraArgs/0': 'workers=4' does not match pattern '^-'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := release{values: test.values}.text(t)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

// Names of releases that Helm takes, and Services do not.
func TestWrongNamesAreRefused(t *testing.T) {
	helmProgram(t)
	for name, want := range map[string]string{
		"1a":  `would begin with "1a-eks-hybrid-dra", but those of Services begin with a letter`,
		"a.b": `would begin with "a.b-eks-hybrid-dra"`,
	} {
		_, err := release{name: name}.text(t)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "set fullnameOverride") {
			t.Errorf("%s: got %v, want %q in it", name, err, want)
		}
		if _, err := (release{name: name, values: "fullnameOverride: dgx"}).text(t); err != nil {
			t.Errorf("%s under another name: %v", name, err)
		}
	}
}

// What the chart passes to its programs cannot be said twice.
func TestFlagsOfTheChartAreItsOwn(t *testing.T) {
	helmProgram(t)
	list := release{values: everything, set: []string{"--set-string=hybrid.registry.caFiles.ca\\.crt=" + pem, "--set-json=hybrid.cniAffinity.daemonSets=[{\"preset\":\"cilium\"}]"}}.objects(t)
	bare := release{values: "webhook: {enabled: false}"}.objects(t)
	for _, test := range []struct {
		list                    objects
		kind, component, values string
		name                    string
	}{
		{list, "DaemonSet", "kubelet-plugin", "kubeletPlugin", "dgx"},
		{list, "Deployment", "controller", "controller", "dgx"},
		{list, "DaemonSet", "registry-trust", "hybrid.registry", "dgx"},
		{bare, "Deployment", "controller", "controller", "eks-hybrid-dra"},
	} {
		object := test.list.get(t, test.kind, test.name+"-"+test.component)
		container := podSpec(t, test.list, object).Containers[0]
		for _, arg := range container.Args {
			if strings.Contains(everything, arg) {
				continue // of extraArgs
			}
			t.Run(test.values+"/"+arg, func(t *testing.T) {
				t.Parallel()
				_, err := release{set: []string{"--set-json=" + test.values + ".extraArgs=[" + strconv.Quote(arg) + "]"}}.text(t)
				if want := test.values + ".extraArgs[0] is " + strconv.Quote(arg); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			})
		}
		for _, variable := range container.Env {
			if variable.ValueFrom == nil {
				continue
			}
			_, err := release{set: []string{"--set-json=" + test.values + `.extraEnv=[{"name":` + strconv.Quote(variable.Name) + "}]"}}.text(t)
			if want := test.values + ".extraEnv[0] is " + variable.Name; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		}
	}
}

func TestTheLinterIsContent(t *testing.T) {
	helmProgram(t)
	for name, set := range sets() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, err := helm(t, append([]string{"lint", "--strict", chart}, set.args(t)...)...); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
