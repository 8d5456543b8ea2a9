// Package realgpu checks pkg/gpu against a real GPU and its driver: what it
// publishes against nvidia-smi, and its container edits by running nvidia-smi
// in a root folder that holds nothing else. Its tests have the build tag gpu
// and skip where there is no GPU.
//
// With EKS_HYBRID_DRA_CAPTURE set to a folder, what NVML and sysfs tell is
// written there, for correcting the simulated machines by it.
package realgpu
