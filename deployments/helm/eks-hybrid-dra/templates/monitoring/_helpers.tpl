{{/*
The programs that have metrics: component, and whether Prometheus is to know the
node. The controller's own metrics have a label "node", which is not its own node.
*/}}
{{- define "eks-hybrid-dra.monitoring.programs" -}}
kubelet-plugin: true
{{- if include "eks-hybrid-dra.controller.enabled" . }}
controller: false
{{- end }}
{{- if .Values.hybrid.registry.enabled }}
registry-trust: true
{{- end }}
{{- end -}}

{{/*
How a program is scraped, which is the same for both kinds of monitors. The job
is what rules and dashboard look for.
  include "eks-hybrid-dra.monitoring.endpoint" (list . "controller" false)
*/}}
{{- define "eks-hybrid-dra.monitoring.endpoint" -}}
{{- $root := index . 0 -}}
path: /metrics
interval: {{ $root.Values.monitoring.scrape.interval }}
relabelings:
- targetLabel: job
  replacement: {{ include "eks-hybrid-dra.fullname" $root }}-{{ index . 1 }}
{{- if index . 2 }}
- sourceLabels: [__meta_kubernetes_pod_node_name]
  targetLabel: node
{{- else }}
# Some metrics have a namespace of their own, which is not the pod's.
honorLabels: true
{{- end }}
{{- end -}}

{{/*
A file in which jobs have the release's name.
  include "eks-hybrid-dra.monitoring.file" (list . "files/rules.yaml")
*/}}
{{- define "eks-hybrid-dra.monitoring.file" -}}
{{- $root := index . 0 -}}
{{- $quote := "(\\\\?\")" -}}
{{- regexReplaceAll (printf "job(=~?)%seks-hybrid-dra-" $quote) ($root.Files.Get (index . 1)) (printf "job${1}${2}%s-" (include "eks-hybrid-dra.fullname" $root)) -}}
{{- end -}}
