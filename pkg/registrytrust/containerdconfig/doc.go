// Package containerdconfig reads containerd's configuration to tell whether
// containerd looks into a folder for the settings of registries. It knows the
// configuration's versions 1 to 4, their imports, and how containerd's
// releases differ in what they make of them.
package containerdconfig
