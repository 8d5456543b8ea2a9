{{/*
What the schema cannot say: values that do not go together. Each message names
the value, what is wrong and the way out.
*/}}
{{- define "eks-hybrid-dra.checks" -}}
{{- include "eks-hybrid-dra.checks.names" . -}}
{{- include "eks-hybrid-dra.checks.driver" . -}}
{{- include "eks-hybrid-dra.checks.nodeConfig" . -}}
{{- include "eks-hybrid-dra.checks.claims" . -}}
{{- include "eks-hybrid-dra.checks.classes" . -}}
{{- include "eks-hybrid-dra.checks.pods" . -}}
{{- include "eks-hybrid-dra.checks.registry" . -}}
{{- include "eks-hybrid-dra.checks.hybrid" . -}}
{{- include "eks-hybrid-dra.checks.cluster" . -}}
{{- include "eks-hybrid-dra.checks.before" . -}}
{{- end -}}

{{/* Releases may be called what a Service may not. */}}
{{- define "eks-hybrid-dra.checks.names" -}}
{{- $name := include "eks-hybrid-dra.fullname" . -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" $name) -}}
{{- fail (printf "the names of this release's objects would begin with %q, but those of Services begin with a letter, and have letters, digits and \"-\" only: set fullnameOverride, or choose another name for the release" $name) -}}
{{- end -}}
{{- end -}}

{{- define "eks-hybrid-dra.checks.driver" -}}
{{- $driver := .Values.driver -}}
{{- if $driver.enableCPU -}}
{{- fail "driver.enableCPU is true, but this release has no CPUs to give: leave it out. CPUs are shared out by kubelet's CPU manager, or by a DRA driver for CPUs beside this one" -}}
{{- end -}}
{{- if not (or $driver.enableGPU $driver.enableSRIOV) -}}
{{- fail "driver.enableGPU and driver.enableSRIOV are both false: nothing is left to serve; set one of them to true" -}}
{{- end -}}
{{- if and .Values.kubeletPlugin.runtimeClassName $driver.enableSRIOV -}}
{{- fail (printf "kubeletPlugin.runtimeClassName is %q, but driver.enableSRIOV is true: moving virtual functions takes a privileged container, which needs no RuntimeClass; leave kubeletPlugin.runtimeClassName out" .Values.kubeletPlugin.runtimeClassName) -}}
{{- end -}}
{{- if and .Values.kubeletPlugin.seLinuxOptions (not .Values.kubeletPlugin.runtimeClassName) -}}
{{- fail "kubeletPlugin.seLinuxOptions is set, but kubeletPlugin.runtimeClassName is not, so that the plugin is privileged, and SELinux leaves it alone: set kubeletPlugin.runtimeClassName, or leave kubeletPlugin.seLinuxOptions out" -}}
{{- end -}}
{{- if and .Values.networkPolicy.metricsFrom (not .Values.networkPolicy.enabled) -}}
{{- fail "networkPolicy.metricsFrom says who may read metrics, but networkPolicy.enabled is false, so that everybody may: set it to true, or leave networkPolicy.metricsFrom out" -}}
{{- end -}}
{{- if and .Values.nodeConfig.managed (not .Values.controller.enabled) -}}
{{- if .Values.nodeConfig.managed.kinds -}}
{{- fail (printf "nodeConfig.managed.kinds is [%s], but controller.enabled is false: nobody would give these devices to claims; set controller.enabled to true, or leave nodeConfig.managed out" (join ", " .Values.nodeConfig.managed.kinds)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* On a cluster without claims the device plugin API has to serve everything. */}}
{{- define "eks-hybrid-dra.checks.claims" -}}
{{- if not (include "eks-hybrid-dra.claims" .) -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- $served := (.Values.nodeConfig.devicePlugin | default dict).kinds | default list -}}
{{- range $kind := list "gpu" "vf" -}}
{{- if not (or (include "eks-hybrid-dra.switchedOff" (list $ $kind)) (has $kind $served)) -}}
{{- fail (printf "the cluster, Kubernetes %s, does not serve resource.k8s.io/v1, as Kubernetes does since 1.34, so that it has no claims: add %q to nodeConfig.devicePlugin.kinds, for pods that ask for an extended resource such as nvidia.com/gpu, or switch %s off. Where helm has no cluster to ask, it goes by --kube-version and --api-versions" $version $kind (eq $kind "gpu" | ternary "driver.enableGPU" "driver.enableSRIOV")) -}}
{{- end -}}
{{- end -}}
{{- range $class, $resource := .Values.deviceClasses.extendedResourceNames -}}
{{- if $resource -}}
{{- fail (printf "deviceClasses.extendedResourceNames.%s is %q, but the cluster, Kubernetes %s, has no DeviceClasses, as Kubernetes does since 1.34: leave the name out; the device plugin API serves nodeConfig.devicePlugin.gpuResource, which is nvidia.com/gpu by default, and nodeConfig.devicePlugin.vfResources" $class $resource $version) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "eks-hybrid-dra.checks.classes" -}}
{{- $classes := .Values.deviceClasses -}}
{{- $served := dict -}}
{{- range $class, $resource := $classes.extendedResourceNames -}}
{{- if $resource -}}
{{- $set := hasPrefix "managed-" $class | ternary "managed" "plain" -}}
{{- if not (index $classes $set).enabled -}}
{{- fail (printf "deviceClasses.extendedResourceNames.%s is %q, but deviceClasses.%s.enabled is false, so there is no such class: set it to true, or leave the name out" $class $resource $set) -}}
{{- end -}}
{{- with include "eks-hybrid-dra.switchedOff" (list $ $class) -}}
{{- fail (printf "deviceClasses.extendedResourceNames.%s is %q, but %s is false, so that the class has no devices: set it to true, or leave the name out" $class $resource .) -}}
{{- end -}}
{{- with index $served $resource -}}
{{- fail (printf "deviceClasses.extendedResourceNames.%s and .%s are both %q: only one class can serve a name" . $class $resource) -}}
{{- end -}}
{{- $_ := set $served $resource $class -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "eks-hybrid-dra.checks.registry" -}}
{{- $registry := .Values.hybrid.registry -}}
{{- $existing := or $registry.existingConfigMap $registry.existingSecret -}}
{{- if and $registry.enabled (not $registry.remove) (not $existing) -}}
{{- if not $registry.registries -}}
{{- fail "hybrid.registry.enabled is true, but no registry is named: list them in hybrid.registry.registries, or name a ConfigMap or Secret with registries.yaml in hybrid.registry.existingConfigMap or .existingSecret" -}}
{{- end -}}
{{- range $i, $r := $registry.registries -}}
{{- range $file := ($r.caFiles | default (list "ca.crt")) -}}
{{- if not (hasKey $registry.caFiles $file) -}}
{{- fail (printf "hybrid.registry.registries[%d] %q needs the certificate %q, which is not in hybrid.registry.caFiles: give it by --set-file 'hybrid.registry.caFiles.%s=<file>', or name a ConfigMap or Secret that has it in hybrid.registry.existingConfigMap or .existingSecret" $i $r.host $file (replace "." "\\." $file)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Where Pod Security admission or a RuntimeClass that is not there keeps the
plugin's pods away, a DaemonSet without pods is all that would be seen of it. Helm
knows what there is only when it talks to a cluster.
*/}}
{{- define "eks-hybrid-dra.checks.cluster" -}}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace -}}
{{- $class := .Values.kubeletPlugin.runtimeClassName -}}
{{- if $namespace -}}
{{- if and $class (not (lookup "node.k8s.io/v1" "RuntimeClass" "" $class)) -}}
{{- fail (printf "kubeletPlugin.runtimeClassName is %q, but the cluster has no such RuntimeClass: make it, with NVIDIA's runtime as its handler, or leave kubeletPlugin.runtimeClassName out, so that the plugin is privileged" $class) -}}
{{- end -}}
{{- $level := index ($namespace.metadata.labels | default dict) "pod-security.kubernetes.io/enforce" | default "privileged" -}}
{{- if ne $level "privileged" -}}
{{- fail (printf "namespace %q enforces the Pod Security Standard %q, which refuses pods that mount host folders, as the driver's do: run \"kubectl label --overwrite namespace %s pod-security.kubernetes.io/enforce=privileged\", or choose another namespace" .Release.Namespace $level .Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
What there is already, and would be left behind or never work. Helm knows it only
when it talks to a cluster.
*/}}
{{- define "eks-hybrid-dra.checks.before" -}}
{{- range (lookup "apps/v1" "DaemonSet" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (index $labels "app.kubernetes.io/part-of" | default "") "eks-hybrid-dra") (eq (index $labels "app.kubernetes.io/component" | default "") "kubelet-plugin") -}}
{{- $release := index $labels "app.kubernetes.io/instance" -}}
{{- if ne $release $.Release.Name -}}
{{- fail (printf "namespace %q has the release %q of this chart already: their controllers would wait for each other for ever; upgrade that release, or choose another namespace" $.Release.Namespace $release) -}}
{{- end -}}
{{- $name := "" -}}
{{- range (first .spec.template.spec.containers).args -}}
{{- if hasPrefix "--driver-name=" . -}}
{{- $name = trimPrefix "--driver-name=" . -}}
{{- end -}}
{{- end -}}
{{- if and $name (ne $name $.Values.driver.name) -}}
{{- fail (printf "driver.name is %q, but the release serves the driver %q: its slices and files would stay on the nodes for ever; uninstall it and install it anew, or leave driver.name at %q" $.Values.driver.name $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not .Values.controller.enabled -}}
{{- $plugins := (include "eks-hybrid-dra.hybrid.scope" . | fromYaml).daemonSets -}}
{{- if $plugins -}}
{{- fail (printf "controller.enabled is false, but the controller has not given back the node affinity of %s yet: upgrade with hybrid.cniAffinity.daemonSets=[] first, and switch it off once the annotation eks-hybrid-dra/cni-affinity is gone" (join ", " $plugins)) -}}
{{- end -}}
{{- with lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-hybrid" (include "eks-hybrid-dra.fullname" .)) -}}
{{- with (index .data "hybrid.yaml" | fromYaml).pullSecret -}}
{{- if .name -}}
{{- fail (printf "controller.enabled is false, but the controller has not removed the copies of the pull secret %q yet: upgrade with hybrid.registry.pullSecret.name=\"\" first, and switch it off once they are gone" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
