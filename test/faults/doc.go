// Package faults tests what the kubelet plugin makes of everything that can go
// wrong around it: the real program, built with the points at which it can be
// made to fail, runs as a process beside a real API server, and the tests play
// kubelet, disk, admin and bad luck. Whatever happens, a device has at most
// one claim, and in the end every device is free and no file is left.
package faults
