{{/*
A DeviceClass of one kind of device, of those that kube-scheduler gives or of
those that the controller does.
  include "eks-hybrid-dra.class" (list . "gpu" false)
*/}}
{{- define "eks-hybrid-dra.class" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
{{- $managed := index . 2 -}}
{{- $class := $managed | ternary (printf "managed-%s" $kind) $kind -}}
{{- $driver := $root.Values.driver.name -}}
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata:
  name: {{ $class }}.{{ $driver }}
  labels:
    {{- include "eks-hybrid-dra.labels" (list $root "classes") | nindent 4 }}
    {{- if $managed }}
    eks-hybrid-dra/managed: "true"
    {{- end }}
spec:
  selectors:
  - cel:
      expression: >-
        device.driver == '{{ $driver }}' &&
        device.attributes['{{ $driver }}'].type == '{{ $kind }}'
        {{- if $managed }} &&
        device.attributes['{{ $driver }}'].?allocator.orValue('') == 'controller'
        {{- end }}
  {{- with index $root.Values.deviceClasses.extendedResourceNames $class }}
  extendedResourceName: {{ . }}
  {{- end }}
{{- end -}}
