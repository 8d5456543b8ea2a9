{{/*
The DaemonSets of an entry of hybrid.cniAffinity.daemonSets, as
api/v1alpha1/hybridconfig.go has the presets. A YAML list.
*/}}
{{- define "eks-hybrid-dra.hybrid.expand" -}}
{{- $presets := dict
  "aws-node" (list (dict "namespace" "kube-system" "name" "aws-node"))
  "calico" (list (dict "namespace" "calico-system" "name" "calico-node") (dict "namespace" "kube-system" "name" "calico-node"))
  "cilium" (list (dict "namespace" "kube-system" "name" "cilium") (dict "namespace" "kube-system" "name" "cilium-envoy"))
-}}
{{- if .preset -}}
{{- get $presets .preset | toYaml -}}
{{- else -}}
{{- list (dict "namespace" .namespace "name" .name) | toYaml -}}
{{- end -}}
{{- end -}}

{{/*
The configuration of another release that keeps CNIs on their nodes, as
NAMESPACE/NAME. Empty if there is none, or Helm has no cluster to ask.
*/}}
{{- define "eks-hybrid-dra.hybrid.other" -}}
{{- $own := printf "%s/%s-hybrid" .Release.Namespace (include "eks-hybrid-dra.fullname" .) -}}
{{- $others := list -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items -}}
{{- $name := .metadata.name -}}
{{- if and (hasSuffix "-hybrid" $name) (eq (index (.metadata.labels | default dict) "app.kubernetes.io/part-of" | default "") "eks-hybrid-dra") -}}
{{- range .subjects -}}
{{- with lookup "v1" "ConfigMap" .namespace $name -}}
{{- if (index .data "hybrid.yaml" | fromYaml).cniAffinity -}}
{{- $others = append $others (printf "%s/%s" .metadata.namespace $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with without $others $own -}}
{{- first . -}}
{{- end -}}
{{- end -}}

{{/*
What the controller does for hybrid nodes, as a YAML object:
  daemonSets     names of the DaemonSets that it may change
  installation   whether it may change what Calico's operator reads
  secrets        names of the Secrets that it may write
  former         those of them that are only to be removed
What was switched on before and is not any more is in there, too, or the
controller could not undo it: what is changed is found by its annotation, and
names of Secrets in the configuration of the release that is upgraded.
*/}}
{{- define "eks-hybrid-dra.hybrid.scope" -}}
{{- $names := list -}}
{{- $installation := false -}}
{{- range .Values.hybrid.cniAffinity.daemonSets -}}
{{- if eq (.preset | default "") "calico" -}}
{{- $installation = true -}}
{{- end -}}
{{- range (include "eks-hybrid-dra.hybrid.expand" . | fromYamlArray) -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- $secret := .Values.hybrid.registry.pullSecret -}}
{{- $former := $secret.formerNames -}}
{{- if .Release.IsUpgrade -}}
{{- $changed := list -}}
{{- range (lookup "apps/v1" "DaemonSet" "" "").items -}}
{{- if hasKey (.metadata.annotations | default dict) "eks-hybrid-dra/cni-affinity" -}}
{{- $changed = append $changed .metadata.name -}}
{{- end -}}
{{- end -}}
{{- $operator := false -}}
{{- if .Capabilities.APIVersions.Has "operator.tigera.io/v1" -}}
{{- with lookup "operator.tigera.io/v1" "Installation" "" "default" -}}
{{- $operator = hasKey (.metadata.annotations | default dict) "eks-hybrid-dra/cni-affinity" -}}
{{- end -}}
{{- end -}}
{{- /* What another release keeps is not this one's to give back. */ -}}
{{- if and (or $changed $operator) (not (include "eks-hybrid-dra.hybrid.other" .)) -}}
{{- $names = concat $names $changed -}}
{{- $installation = or $installation $operator -}}
{{- end -}}
{{- with lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-hybrid" (include "eks-hybrid-dra.fullname" .)) -}}
{{- with (index .data "hybrid.yaml" | fromYaml).pullSecret -}}
{{- $former = concat $former (compact (list .name)) (.formerNames | default list) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $former = without ($former | uniq) $secret.name -}}
{{- dict
  "daemonSets" ($names | uniq | sortAlpha)
  "installation" $installation
  "secrets" (concat (compact (list $secret.name)) $former)
  "former" $former
  | toYaml -}}
{{- end -}}

{{/* Not empty if the controller does anything for hybrid nodes. */}}
{{- define "eks-hybrid-dra.hybrid.enabled" -}}
{{- $scope := include "eks-hybrid-dra.hybrid.scope" . | fromYaml -}}
{{- if and .Values.controller.enabled (or $scope.daemonSets $scope.installation $scope.secrets) -}}
true
{{- end -}}
{{- end -}}

{{/* Values that do not go together. */}}
{{- define "eks-hybrid-dra.checks.hybrid" -}}
{{- $sets := .Values.hybrid.cniAffinity.daemonSets -}}
{{- range $i, $entry := $sets -}}
{{- if and .preset (or .namespace .name) -}}
{{- fail (printf "hybrid.cniAffinity.daemonSets[%d] has preset %q and also a namespace or name: a preset has names of its own; make two entries" $i .preset) -}}
{{- end -}}
{{- if not (or .preset (and .namespace .name .nodes)) -}}
{{- fail (printf "hybrid.cniAffinity.daemonSets[%d] is %s: want a preset, or namespace, name and nodes of a DaemonSet" $i (toJson .)) -}}
{{- end -}}
{{- end -}}
{{- if $sets -}}
{{- with include "eks-hybrid-dra.hybrid.other" . -}}
{{- fail (printf "hybrid.cniAffinity.daemonSets is not empty, but another release keeps CNIs on their nodes already, by its ConfigMap %s: the two would undo what the other does; name all DaemonSets in the values of one of them" .) -}}
{{- end -}}
{{- end -}}
{{- $secret := .Values.hybrid.registry.pullSecret -}}
{{- if and (not $secret.name) (or $secret.namespaces (kindIs "map" $secret.namespaceSelector)) -}}
{{- fail "hybrid.registry.pullSecret chooses namespaces, but has no name: name the Secret in hybrid.registry.pullSecret.name" -}}
{{- end -}}
{{- if not .Values.controller.enabled -}}
{{- if $sets -}}
{{- fail "hybrid.cniAffinity.daemonSets is not empty, but controller.enabled is false: the controller keeps DaemonSets where they belong; set controller.enabled to true" -}}
{{- end -}}
{{- if $secret.name -}}
{{- fail (printf "hybrid.registry.pullSecret.name is %q, but controller.enabled is false: the controller copies the Secret; set controller.enabled to true" $secret.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
