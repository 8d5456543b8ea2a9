// Package nameplate is what a simulated machine tells the simulated
// nvidia-smi, which runs in containers and has nothing else to ask: a JSON
// document at the end of libnvidia-ml.so. Loaders do not read that far.
package nameplate
