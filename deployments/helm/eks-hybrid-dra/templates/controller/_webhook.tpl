{{/* The namespaces whose claims and pods are checked: not those that a cluster stands on. */}}
{{- define "eks-hybrid-dra.webhook.namespaces" -}}
matchExpressions:
- key: kubernetes.io/metadata.name
  operator: NotIn
  values: [{{ list "kube-system" .Release.Namespace | uniq | join ", " }}]
# The way out for a namespace: there, only the plugin tells what is wrong.
- key: eks-hybrid-dra/webhook
  operator: NotIn
  values: [ignore]
{{- end -}}
