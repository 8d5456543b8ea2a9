{{/* The configuration file of the plugin. */}}
{{- define "eks-hybrid-dra.nodeConfig" -}}
apiVersion: resource.eks-hybrid-dra/v1alpha1
kind: NodeConfig
{{- with .Values.nodeConfig }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Not empty if devices are served by kubelet's device plugin API, or were: an
empty list of kinds is how pods that still have some are left to their end. */}}
{{- define "eks-hybrid-dra.devicePlugin" -}}
{{- with .Values.nodeConfig.devicePlugin }}true{{ end -}}
{{- end -}}

{{/* Not empty if VFs are or were, which Multus hands to network plugins. */}}
{{- define "eks-hybrid-dra.devicePluginVFs" -}}
{{- with .Values.nodeConfig.devicePlugin -}}
{{- if or (has "vf" (.kinds | default list)) .vfResources }}true{{ end -}}
{{- end -}}
{{- end -}}
