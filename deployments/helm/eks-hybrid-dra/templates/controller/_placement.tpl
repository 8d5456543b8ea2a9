{{/*
Not empty if the controller runs. On a cluster without claims it does if hybrid nodes
need it.
*/}}
{{- define "eks-hybrid-dra.controller.enabled" -}}
{{- if and .Values.controller.enabled (or (include "eks-hybrid-dra.claims" .) (include "eks-hybrid-dra.hybrid.enabled" .)) -}}
true
{{- end -}}
{{- end -}}

{{/* Where the controller runs. */}}
{{- define "eks-hybrid-dra.controller.affinity" -}}
{{- include "eks-hybrid-dra.placement" (list . .Values.controller.cloudNodes) -}}
{{- end -}}

{{/*
Where a pod runs for which cloud nodes count so much, unless controller.affinity
says where.
  include "eks-hybrid-dra.placement" (list . "preferred")
*/}}
{{- define "eks-hybrid-dra.placement" -}}
{{- $affinity := (index . 0).Values.controller.affinity -}}
{{- $cloudNodes := index . 1 -}}
{{- if $affinity -}}
{{ toYaml $affinity }}
{{- else if eq $cloudNodes "preferred" -}}
nodeAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
  - weight: 100
    preference:
      matchExpressions:
      - key: eks.amazonaws.com/compute-type
        operator: NotIn
        values: [hybrid]
{{- else if eq $cloudNodes "required" -}}
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
