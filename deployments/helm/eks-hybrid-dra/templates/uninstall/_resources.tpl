{{/* The extended resources that the plugin serves without claims: a YAML list. */}}
{{- define "eks-hybrid-dra.uninstall.resources" -}}
{{- $names := list -}}
{{- with .Values.nodeConfig.devicePlugin -}}
{{- $kinds := .kinds | default list -}}
{{- if has "gpu" $kinds -}}
{{- $names = append $names (.gpuResource | default "nvidia.com/gpu") -}}
{{- end -}}
{{- if has "vf" $kinds -}}
{{- range .vfResources -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $names -}}
{{- end -}}
