{{/*
Where the driver's pods may connect to. A NetworkPolicy cannot name the API
server, whose addresses are not those of pods; its ports can be named.
*/}}
{{- define "eks-hybrid-dra.egress" -}}
# DNS, and the API server, which is no pod that could be named.
- ports:
  - port: 53
    protocol: UDP
  - port: 53
    protocol: TCP
  {{- range .Values.networkPolicy.apiServerPorts }}
  - port: {{ . }}
    protocol: TCP
  {{- end }}
{{- end -}}
