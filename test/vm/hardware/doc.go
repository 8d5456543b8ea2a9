// Package hardware holds tests of the guest itself: that its machine and its
// kernel are what the driver's tests in it rely on. They need the build tag
// guest and run by `go run ./test/vm test ./test/vm/hardware`.
package hardware
