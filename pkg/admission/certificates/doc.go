// Package certificates gives the webhook's server its certificate and the API
// server the means to trust it, with nothing else installed. One Secret holds
// the certificate for all replicas; whichever is first makes and renews it and
// writes its authority into the webhook configuration, and every replica serves
// what the Secret holds, from memory, as soon as it changes.
//
// Each certificate has an authority of its own whose key is thrown away, so
// that who reads the Secret can sign nothing. A new certificate is trusted
// before it is served, and the old authority stays trusted until it expires, so
// that a renewal is never felt.
//
// It is written on client-go's cert package and not on
// open-policy-agent/cert-controller, whose v0.16.0 does not fit: it watches every
// Secret of its namespace and every webhook configuration of the cluster, which
// needs permissions for all of them; it serves through a mounted volume, which
// kubelet fills up to two minutes late; and it replaces a trusted authority by
// the next at once, while replicas still serve the old certificate.
package certificates
