// Package gpu is the family of NVIDIA GPUs: it finds them through NVML, says
// where they sit through sysfs, and hands a container what it needs to use one
// through NVIDIA's own nvcdi.
//
// One look at the machine collects everything, container edits included, into
// a snapshot that is never changed afterwards. Prepare answers from the
// snapshot, so that it neither calls NVML nor searches the disk, and a new
// look is taken when the driver appears or changes, when a file that the
// edits name has gone, and every few minutes.
package gpu
