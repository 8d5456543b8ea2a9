{{/*
Parts of nodeConfig that could do nothing, or harm. What a single field may be, the
schema says, and the plugin itself.
*/}}
{{- define "eks-hybrid-dra.checks.nodeConfig" -}}
{{- $config := .Values.nodeConfig -}}
{{- range $section := list "managed" "devicePlugin" -}}
{{- range $kind := (index $config $section | default dict).kinds -}}
{{- with include "eks-hybrid-dra.switchedOff" (list $ $kind) -}}
{{- fail (printf "nodeConfig.%s.kinds has %q, but %s is false, so that there are no such devices: set it to true, or take %q out" $section $kind . $kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $managed := ($config.managed | default dict).kinds | default list -}}
{{- with $config.devicePlugin -}}
{{- $resources := .vfResources -}}
{{- range $kind := .kinds -}}
{{- if or (has $kind $managed) (has "gpu-vf" $managed) -}}
{{- fail (printf "nodeConfig.devicePlugin.kinds has %q, but nodeConfig.managed.kinds is [%s], and gives the same devices to the controller, which allocates claims: take one of the two out" $kind (join ", " $managed)) -}}
{{- end -}}
{{- if and (eq $kind "vf") (not $resources) -}}
{{- fail "nodeConfig.devicePlugin.kinds has \"vf\", but nodeConfig.devicePlugin.vfResources is empty, so that nobody could ask for them: name at least one resource there, such as {name: nvidia.com/vf}" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "eks-hybrid-dra.checks.nodeLabels" . -}}
{{- end -}}

{{- define "eks-hybrid-dra.checks.nodeLabels" -}}
{{- with .Values.nodeConfig.nodeLabels -}}
{{- $enabled := .enabled -}}
{{- $keys := dict "gpu" (.gpu | default "gpu") "gpuCount" (.gpuCount | default "gpu-count") -}}
{{- range $field, $key := $keys -}}
{{- $domain := contains "/" $key | ternary (splitList "/" $key | first) "" -}}
{{- if regexMatch "(^|\\.)(kubernetes\\.io|k8s\\.io|amazonaws\\.com|karpenter\\.sh)$" $domain -}}
{{- fail (printf "nodeConfig.nodeLabels.%s is %q, but labels of %s are the platform's, and decide what runs on a node: choose a domain of your own, or none" $field $key $domain) -}}
{{- end -}}
{{- if and $enabled (hasKey $.Values.kubeletPlugin.nodeSelector $key) -}}
{{- fail (printf "nodeConfig.nodeLabels.%s is %q, by which kubeletPlugin.nodeSelector chooses the nodes of the plugin: it would decide by what it finds whether it runs there at all; choose another label for one of the two" $field $key) -}}
{{- end -}}
{{- end -}}
{{- if eq $keys.gpu $keys.gpuCount -}}
{{- fail (printf "nodeConfig.nodeLabels.gpu and .gpuCount are both %q: a label has one value; choose another key for one of them" $keys.gpu) -}}
{{- end -}}
{{- end -}}
{{- end -}}
