{{/* Where the controller runs. */}}
{{- define "eks-hybrid-dra.controller.affinity" -}}
{{- $controller := .Values.controller -}}
{{- if $controller.affinity -}}
{{ toYaml $controller.affinity }}
{{- else if eq $controller.cloudNodes "preferred" -}}
nodeAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
  - weight: 100
    preference:
      matchExpressions:
      - key: eks.amazonaws.com/compute-type
        operator: NotIn
        values: [hybrid]
{{- else if eq $controller.cloudNodes "required" -}}
nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
    - matchExpressions:
      - key: eks.amazonaws.com/compute-type
        operator: NotIn
        values: [hybrid]
{{- end -}}
{{- end -}}

{{/*
How replicas are spread. Those of one version count together, so that an update
spreads the new ones, too.
*/}}
{{- define "eks-hybrid-dra.controller.spread" -}}
{{- $labels := include "eks-hybrid-dra.selectorLabels" (list . "controller") | fromYaml -}}
{{- $constraints := list -}}
{{- range .Values.controller.topologySpreadConstraints -}}
{{- $constraint := deepCopy . -}}
{{- if not (hasKey . "labelSelector") -}}
{{- $_ := set $constraint "labelSelector" (dict "matchLabels" $labels) -}}
{{- if not (hasKey . "matchLabelKeys") -}}
{{- $_ := set $constraint "matchLabelKeys" (list "pod-template-hash") -}}
{{- end -}}
{{- end -}}
{{- $constraints = append $constraints $constraint -}}
{{- end -}}
{{- toYaml $constraints -}}
{{- end -}}
