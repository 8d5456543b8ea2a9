// Package classes tells which DeviceClasses select this driver's devices, of
// which kind these are, and who allocates them. A class says that only by CEL
// expressions, which are therefore tried on one made-up device of each kind: the
// answer is there before any node has published a device.
package classes
