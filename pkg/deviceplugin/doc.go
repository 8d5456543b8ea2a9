// Package deviceplugin gives the node's devices to pods that ask for extended
// resources, such as "nvidia.com/gpu: 1", by kubelet's device plugin API.
//
// It stands beside package driver, which gives devices to claims, over the same
// families and the same holdings on disk. What a device is to be served by, the
// configuration says; what it is served by, its holding says: a device is given
// to kubelet only while the device plugin holds it, and to claims only while it
// does not. So a device that changes sides does so when nobody uses it any more,
// and no crash, update or second instance makes two of its owner.
package deviceplugin
