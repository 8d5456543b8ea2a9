{{/* The configuration file of the plugin. */}}
{{- define "eks-hybrid-dra.nodeConfig" -}}
apiVersion: resource.eks-hybrid-dra/v1alpha1
kind: NodeConfig
{{- with .Values.nodeConfig }}
{{ toYaml . }}
{{- end }}
{{- end -}}
