// Package boot is what the guest's first process and the machine outside agree
// on: the kernel passes settings on as init's environment, and init's marks in
// the console's log tell how far the guest has come.
package boot
