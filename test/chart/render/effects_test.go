package render

import (
	"slices"
	"strings"
	"testing"
)

// inUse is the chart with all that can be switched on, so that values of what is
// off by default have an effect, too.
const inUse = `
driver: {enableSRIOV: true}
hybrid:
  registry: {enabled: true, existingSecret: x, pullSecret: {name: x, namespaces: [x]}}
  cniAffinity: {daemonSets: [{preset: cilium}]}
monitoring: {scrape: {enabled: true}, rules: {enabled: true}, dashboard: {enabled: true}}
priorityClass: {create: true}
`

// others are other values than the default, or than those that are in use. What
// is not here gets another by its type.
func others() map[string]string {
	return map[string]string{
		"nameOverride":                                 `"other"`,
		"fullnameOverride":                             `"other"`,
		"driver.enableGPU":                             `false`,
		"driver.enableSRIOV":                           `false`,
		"image.digest":                                 `"sha256:` + strings.Repeat("0", 64) + `"`,
		"image.pullPolicy":                             `"Always"`,
		"imagePullSecrets":                             `[{"name":"x"}]`,
		"simulate":                                     `"dgx-h100"`,
		"nodeConfig":                                   `{"nccl":{"setIBHCA":true}}`,
		"kubeletPlugin.driverRoot":                     `"/x"`,
		"kubeletPlugin.runtimeClassName":               `"nvidia",driver.enableSRIOV=false`,
		"kubeletPlugin.seLinuxOptions":                 `{"type":"spc_t"},kubeletPlugin.runtimeClassName="nvidia",driver.enableSRIOV=false`,
		"controller.enabled":                           `false,hybrid.cniAffinity.daemonSets=[],hybrid.registry.pullSecret={"name":"","namespaces":[]}`,
		"controller.cloudNodes":                        `"required"`,
		"webhook.failurePolicy":                        `"Fail"`,
		"networkPolicy.metricsFrom":                    `[{"podSelector":{}}]`,
		"priorityClass.create":                         `false`,
		"monitoring.scrape.enabled":                    `false`,
		"monitoring.scrape.kind":                       `"ServiceMonitor"`,
		"monitoring.rules.enabled":                     `false`,
		"monitoring.rules.disabled":                    `["EKSHybridDRAPluginDown"]`,
		"monitoring.rules.runbooks":                    `"https://example.com"`,
		"monitoring.dashboard.enabled":                 `false`,
		"hybrid.cniAffinity.daemonSets":                `[{"preset":"calico"}]`,
		"hybrid.registry.enabled":                      `false`,
		"hybrid.registry.existingSecret":               `"y"`,
		"hybrid.registry.caFiles":                      `{"x":"-----BEGIN "}`,
		"hybrid.registry.pullSecret.name":              `"y"`,
		"hybrid.registry.pullSecret.namespaces":        `["y"]`,
		"hybrid.registry.pullSecret.formerNames":       `["y"]`,
		"hybrid.registry.pullSecret.namespaceSelector": `{}`,
		"uninstall.timeoutSeconds":                     `77`,
	}
}

// byType returns another value of the type of the default. Those of one name are
// alike wherever they are.
func byType(t *testing.T, path string, preset any) string {
	t.Helper()
	name := path[strings.LastIndex(path, ".")+1:]
	if strings.Contains(path, "extendedResourceNames") {
		return `"example.com/x"`
	}
	switch name {
	case "unusedAfter", "gangTimeout", "explainAfter", "interval", "retry":
		return `"77s"`
	case "kubeletRoot", "cdiRoot":
		return `"/x"`
	case "nodeSelector", "annotations", "labels", "podAnnotations", "podLabels":
		return `{"x":"y"}`
	case "affinity":
		return `{"podAffinity":{}}`
	case "seLinuxOptions":
		return `{"type":"x"}`
	case "resources":
		return `{"requests":{"cpu":"7"}}`
	case "updateStrategy":
		return `{"rollingUpdate":{"maxUnavailable":7}}`
	case "extraArgs":
		return `["-x"]`
	case "extraEnv":
		return `[{"name":"X"}]`
	case "registries":
		return `[{"host":"x"}]`
	case "apiServerPorts":
		return `[7]`
	case "tolerations", "topologySpreadConstraints":
		return `[]`
	}
	switch preset := preset.(type) {
	case bool:
		if preset {
			return `false`
		}
		return `true`
	case float64:
		return `7`
	case string:
		return `"x"`
	}
	t.Fatalf("say in others what else than %v %s may be", preset, path)
	return ""
}

// Each value does something: another one changes what helm renders.
func TestEachValueHasAnEffect(t *testing.T) {
	// See TestWrongValuesAreRefused.
	refused := []string{"driver.enableCPU"}
	before, err := release{values: inUse}.text(t)
	if err != nil {
		t.Fatal(err)
	}
	values := documented(t)
	for path := range others() {
		if _, ok := values[path]; !ok {
			t.Errorf("there is no value %s any more", path)
		}
	}
	for path, preset := range values {
		if slices.Contains(refused, path) {
			continue
		}
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			other, ok := others()[path]
			if !ok {
				other = byType(t, path, preset)
			}
			after, err := release{values: inUse, set: []string{"--set-json=" + path + "=" + other}}.text(t)
			if err != nil {
				t.Fatal(err)
			}
			if before == after {
				t.Errorf("%s=%s changes nothing", path, other)
			}
		})
	}
}
