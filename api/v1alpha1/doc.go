// Package v1alpha1 holds the configuration that a ResourceClaim or DeviceClass
// may carry for this driver in its opaque parameters, group
// resource.eks-hybrid-dra/v1alpha1: the kinds, their defaults and validation,
// and a decoder that refuses what it does not know.
//
// It also holds the label and annotation keys of the project, which stay the
// same whatever the driver is called.
package v1alpha1
