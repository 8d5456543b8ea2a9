{{/* The configuration file of the plugin. */}}
{{- define "eks-hybrid-dra.nodeConfig" -}}
apiVersion: resource.eks-hybrid-dra/v1alpha1
kind: NodeConfig
{{- with .Values.nodeConfig }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Not empty if devices are served by kubelet's device plugin API. */}}
{{- define "eks-hybrid-dra.devicePlugin" -}}
{{- with .Values.nodeConfig.devicePlugin -}}
{{- with .kinds }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if VFs are, which Multus then hands to network plugins. */}}
{{- define "eks-hybrid-dra.devicePluginVFs" -}}
{{- with .Values.nodeConfig.devicePlugin -}}
{{- if has "vf" (.kinds | default list) }}true{{ end -}}
{{- end -}}
{{- end -}}
