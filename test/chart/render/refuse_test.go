package render

import (
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

func TestAnOlderKubernetesIsRefused(t *testing.T) {
	helmProgram(t)
	_, err := release{set: []string{"--kube-version=1.33.9"}}.text(t)
	const want = "chart requires kubeVersion: >=1.34.0-0 which is incompatible with Kubernetes v1.33.9"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
	// As EKS calls its versions.
	if _, err := (release{set: []string{"--kube-version=v1.34.1-eks-3025e55"}}).text(t); err != nil {
		t.Error(err)
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
