// Package consumers knows which pods use a claim, and on which nodes these pods
// can run: a claim that is allocated elsewhere is of no use to them.
package consumers
