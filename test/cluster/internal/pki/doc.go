// Package pki makes the identities of a test cluster: one certificate
// authority, a certificate for each component under the name that Kubernetes'
// own authorizers expect, the service-account key, and kubeconfigs.
package pki
