// Package cli is the command line of the cluster tool: flags in, orders out.
package cli
