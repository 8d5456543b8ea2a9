{{/*
What extraArgs, extraEnv and podLabels must leave alone: the last of two flags counts,
so that a value of the chart would silently do nothing, or what belongs together would
not any more. A flag has the value to set instead; one without is the chart's own.
*/}}
{{- define "eks-hybrid-dra.checks.pods" -}}
{{- $plugin := dict
  "driver-name" "driver.name" "kubelet-root" "kubeletPlugin.kubeletRoot" "cdi-root" "kubeletPlugin.cdiRoot"
  "driver-root" "kubeletPlugin.driverRoot" "config" "nodeConfig" "enable-gpu" "driver.enableGPU"
  "enable-sriov" "driver.enableSRIOV" "simulate" "simulate" "v" "kubeletPlugin.logLevel"
  "host-root" "" "node-name" "" "node-addresses" "" "pod-uid" "" "http-address" ""
-}}
{{- $controller := dict
  "driver-name" "driver.name" "unused-after" "controller.unusedAfter" "gang-timeout" "controller.gangTimeout"
  "explain-after" "controller.explainAfter" "topology-label" "controller.topologyLabel" "workers" "controller.workers"
  "enable-webhook" "webhook.enabled" "v" "controller.logLevel"
  "enable-claims" "" "hybrid-config" "" "webhook-secret" "" "webhook-service" "" "webhook-configuration" "" "webhook-port" ""
  "namespace" "" "http-address" ""
-}}
{{- $registry := dict
  "interval" "hybrid.registry.interval" "retry" "hybrid.registry.retry" "v" "hybrid.registry.logLevel"
  "node-name" "" "http-address" ""
-}}
{{- $runtime := .Values.kubeletPlugin.runtimeClassName | empty | ternary (list) (list "NVIDIA_VISIBLE_DEVICES" "NVIDIA_DRIVER_CAPABILITIES") -}}
{{- range $part := list
  (list "kubeletPlugin" .Values.kubeletPlugin $plugin (concat (list "NODE_NAME" "NODE_ADDRESSES" "POD_UID") $runtime))
  (list "controller" .Values.controller $controller (list "POD_NAMESPACE"))
  (list "hybrid.registry" .Values.hybrid.registry $registry (list "NODE_NAME"))
-}}
{{- $name := index $part 0 -}}
{{- $values := index $part 1 -}}
{{- range $i, $argument := $values.extraArgs -}}
{{- $flag := regexReplaceAll "^--?([^=]*).*$" $argument "${1}" -}}
{{- $flag = regexMatch "^v[0-9]*$" $flag | ternary "v" $flag -}}
{{- if hasKey (index $part 2) $flag -}}
{{- $instead := get (index $part 2) $flag -}}
{{- fail (printf "%s.extraArgs[%d] is %q, but that flag is set by the chart: %s" $name $i $argument ($instead | empty | ternary "leave it out" (printf "set %s instead" $instead))) -}}
{{- end -}}
{{- end -}}
{{- range $i, $variable := $values.extraEnv -}}
{{- if has $variable.name (index $part 3) -}}
{{- fail (printf "%s.extraEnv[%d] is %s, but that variable is set by the chart: leave it out" $name $i $variable.name) -}}
{{- end -}}
{{- end -}}
{{- range $label, $value := $values.podLabels -}}
{{- if has $label (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component") -}}
{{- fail (printf "%s.podLabels has %q, by which the chart finds its pods: leave it out" $name $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
