// Package selection says which VFs the driver publishes, and how many VFs a PF
// is to have, from the selectors of the plugin's configuration.
//
// Selectors have the meaning that users of the SR-IOV network device plugin
// know. One thing is added: a NIC that the host itself uses is left alone unless
// a selector names it.
package selection
