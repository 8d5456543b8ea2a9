{{/* The chart's name, as labels have it. */}}
{{- define "eks-hybrid-dra.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/*
The first part of the names of all objects. Short enough that the longest name
made of it is still one that a Service may have: of a long one the end is a hash,
or releases whose names differ at their end only would have objects in common.
*/}}
{{- define "eks-hybrid-dra.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = include "eks-hybrid-dra.name" . -}}
{{- $name = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- if gt (len $name) 40 -}}
{{- $name = printf "%s-%s" ($name | trunc 31 | trimSuffix "-") ($name | sha256sum | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/*
Not empty if the cluster has claims. Without a cluster to ask, Helm says that there
is every API that it knows itself, whatever --kube-version says.
*/}}
{{- define "eks-hybrid-dra.claims" -}}
{{- if and (semverCompare ">=1.34.0-0" .Capabilities.KubeVersion.Version) (.Capabilities.APIVersions.Has "resource.k8s.io/v1") -}}
true
{{- end -}}
{{- end -}}

{{/*
The switch that keeps the devices of a kind, or of a class, from being there. Empty
if none does.
  include "eks-hybrid-dra.switchedOff" (list . "gpu-vf")
*/}}
{{- define "eks-hybrid-dra.switchedOff" -}}
{{- $driver := (index . 0).Values.driver -}}
{{- $kind := index . 1 | trimPrefix "managed-" -}}
{{- if and (has $kind (list "gpu" "gpu-vf")) (not $driver.enableGPU) -}}
driver.enableGPU
{{- else if and (has $kind (list "vf" "gpu-vf")) (not $driver.enableSRIOV) -}}
driver.enableSRIOV
{{- end -}}
{{- end -}}

{{/*
By which labels the pods of a component are found. They never change, for a
DaemonSet's selector cannot.
  include "eks-hybrid-dra.selectorLabels" (list . "controller")
*/}}
{{- define "eks-hybrid-dra.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "eks-hybrid-dra.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/*
The labels of objects.
  include "eks-hybrid-dra.labels" (list . "controller")
*/}}
{{- define "eks-hybrid-dra.labels" -}}
{{- $root := index . 0 -}}
{{ include "eks-hybrid-dra.selectorLabels" . }}
app.kubernetes.io/part-of: eks-hybrid-dra
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The image of all programs. */}}
{{- define "eks-hybrid-dra.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
The PriorityClass of pods: the one that their values name, else the release's.
  include "eks-hybrid-dra.priorityClassName" (list . .Values.controller)
*/}}
{{- define "eks-hybrid-dra.priorityClassName" -}}
{{- $root := index . 0 -}}
{{- $name := (index . 1).priorityClassName -}}
{{- if $name -}}
{{- $name -}}
{{- else if $root.Values.priorityClass.create -}}
{{- include "eks-hybrid-dra.fullname" $root -}}
{{- end -}}
{{- end -}}
