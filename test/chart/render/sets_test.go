package render

// pem stands for a certificate: nobody looks into it here.
const pem = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"

// sets are ways to install the chart that differ in all that matters.
func sets() map[string]release {
	return map[string]release{
		"defaults": {},
		"as in the guide": {
			name: "dra-driver", namespace: "kube-system",
			set: []string{"--set=driver.name=eks-hybrid-dra", "--set=driver.enableGPU=true"},
		},
		"everything": {values: everything, set: []string{"--set-string=hybrid.registry.caFiles.ca\\.crt=" + pem}},
		"without privileges": {values: `
kubeletPlugin: {runtimeClassName: nvidia, seLinuxOptions: {type: spc_t}}
`},
		"as little as possible": {values: `
controller: {enabled: false}
deviceClasses: {plain: {enabled: false}, managed: {enabled: false}}
admissionPolicies: {enabled: false}
networkPolicy: {enabled: false}
kubeletPlugin: {nodeSelector: {eks.amazonaws.com/compute-type: null}, tolerations: [], resources: null, priorityClassName: ""}
`},
		"another driver": {name: "eks-hybrid-dra-two", namespace: "two", set: []string{"--set=driver.name=gpus.example.com", "--set=driver.enableSRIOV=true"}},
		"one replica on cloud nodes": {values: `
controller: {replicas: 1, cloudNodes: required, topologySpreadConstraints: []}
webhook: {enabled: false}
`},
		"registries from a Secret": {values: `
image: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
imagePullSecrets: [{name: harbor}]
hybrid: {registry: {enabled: true, existingSecret: registries}}
`},
		"registries that are given up": {set: []string{"--set=hybrid.registry.enabled=true,hybrid.registry.remove=true"}},
		"by the device plugin API": {values: `
driver: {enableSRIOV: true}
nodeConfig: {devicePlugin: {kinds: [gpu, vf], mode: envvar, gpuResource: nvidia.com/gpu, settle: 1m, vfResources: [{name: nvidia.com/vf, selectors: [{linkTypes: [infiniband]}]}]}}
`},
		"no longer by the device plugin API": {values: `
nodeConfig: {devicePlugin: {kinds: [], vfResources: [{name: nvidia.com/vf, selectors: [{linkTypes: [infiniband]}]}]}}
`},
		"a simulated machine": {set: []string{"--set=simulate=dgx-h100", "--set=kubeletPlugin.runtimeClassName=nvidia"}},
	}
}

// everything is every value in use, and none at its default.
const everything = `
fullnameOverride: dgx
driver: {name: dgx.example.com, enableSRIOV: true}
image: {repository: registry.example.com/team/eks-hybrid-dra, tag: v0.1, pullPolicy: Always}
imagePullSecrets: [{name: harbor}, {name: ecr}]
simulate: dgx-h200
nodeConfig:
  sriov: {selectors: [{vendors: ["15b3"], pfNames: ["ibp24s0#0-3"], linkTypes: [infiniband], rdma: true, numVFs: 8, mtu: 4092}]}
  pairing: {leastAlignment: PXB, pairs: [{gpu: "0000:1b:00.0", nic: "0000:18:00.0"}]}
  nccl: {setIBHCA: true}
  managed: {kinds: [gpu-vf], nodeSelector: {example.com/allocator: controller}, settle: 1m}
kubeletPlugin:
  nodeSelector: {gpu: h200}
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: gpu-count, operator: Exists}]}]
  tolerations: [{key: dedicated, operator: Equal, value: gpu, effect: NoSchedule}]
  priorityClassName: ""
  resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 512Mi}}
  kubeletRoot: /data/kubelet
  cdiRoot: /etc/cdi
  driverRoot: /run/nvidia/driver
  logLevel: 4
  extraArgs: [--attach-wait=30s]
  extraEnv: [{name: GOMAXPROCS, value: "2"}]
  podAnnotations: {example.com/a: b}
  podLabels: {example.com/team: ml}
  updateStrategy: {rollingUpdate: {maxSurge: 2}}
  serviceAccount: {annotations: {example.com/c: d}}
controller:
  replicas: 3
  nodeSelector: {role: system}
  affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: role, operator: In, values: [system]}]}}]}}
  tolerations: [{operator: Exists}]
  unreachableSeconds: 60
  topologySpreadConstraints: [{topologyKey: example.com/rack, maxSkew: 2, whenUnsatisfiable: DoNotSchedule}]
  podDisruptionBudget: {maxUnavailable: 50%}
  priorityClassName: ""
  resources: {limits: {memory: 2Gi}}
  unusedAfter: 20m
  gangTimeout: 1h
  explainAfter: 30s
  topologyLabel: topology.kubernetes.io/zone
  workers: 4
  logLevel: 2
  extraArgs: [--leader-elect-lease-duration=20s]
  extraEnv: [{name: GOMAXPROCS, value: "1"}]
  podAnnotations: {example.com/a: b}
  podLabels: {example.com/team: ml}
  serviceAccount: {annotations: {example.com/c: d}}
webhook: {failurePolicy: Fail, timeoutSeconds: 10}
deviceClasses:
  extendedResourceNames: {gpu: nvidia.com/gpu, vf: example.com/vf, gpu-vf: example.com/pair, managed-gpu: example.com/managed-gpu, managed-vf: example.com/managed-vf, managed-gpu-vf: example.com/managed-pair}
networkPolicy:
  apiServerPorts: [6443]
  metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
priorityClass: {create: true, value: 2000}
monitoring:
  scrape: {enabled: true, interval: 15s, labels: {release: prometheus}}
  rules: {enabled: true, labels: {release: prometheus}}
  dashboard: {enabled: true, annotations: {grafana_folder: GPUs}}
hybrid:
  registry:
    enabled: true
    registries: [{host: harbor.example.com}, {host: "harbor.example.com:8443", caFiles: [ca.crt]}]
    existingConfigMap: registries
    existingSecret: certificates
    nodeSelector: {rack: a}
    affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: rack, operator: Exists}]}]}}}
    tolerations: [{key: dedicated, operator: Exists}]
    priorityClassName: ""
    resources: {limits: {memory: 64Mi}}
    seLinuxOptions: {type: spc_t}
    interval: 5m
    retry: 10s
    logLevel: 1
    extraArgs: [--containerd-config=]
    extraEnv: [{name: HTTPS_PROXY, value: "http://proxy.example.com"}]
    podAnnotations: {example.com/a: b}
    podLabels: {example.com/team: ml}
    updateStrategy: {rollingUpdate: {maxUnavailable: 2}}
    serviceAccount: {annotations: {example.com/c: d}}
`
