{{/* Not empty if the controller serves the webhook, which is about claims. */}}
{{- define "eks-hybrid-dra.webhook.enabled" -}}
{{- if and (include "eks-hybrid-dra.controller.enabled" .) (include "eks-hybrid-dra.claims" .) .Values.webhook.enabled -}}
true
{{- end -}}
{{- end -}}

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
