{{/* The chart's name, as labels have it. */}}
{{- define "eks-hybrid-dra.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/*
The first part of the names of all objects. Short enough that the longest name
made of it is still one that a Service may have.
*/}}
{{- define "eks-hybrid-dra.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "eks-hybrid-dra.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
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
