// Nvidia-smi imitates NVIDIA's tool in containers that were given GPUs of a
// simulated machine.
//
// It needs nothing but what a container gets with a real GPU: libnvidia-ml in
// a library folder, where it reads the machine's nameplate, and the device
// nodes, by which it tells the GPUs that the container has from those that it
// has not. So what it prints proves what was injected. Texts and exit codes
// follow the real tool; it must be linked statically, because images need not
// have a C library.
package main
