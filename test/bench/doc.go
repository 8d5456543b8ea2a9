// Command bench measures our driver, and another one for comparison, in a real
// cluster that it brings up for itself. It prints one line per figure and
// writes docs/performance.md with the conditions and a plot:
//
//	go run ./test/bench prepare
//	go run ./test/bench attach
//
// The first measures claims, the second virtual functions. With BENCH_QUICK=1 it takes few samples, about a minute, and leaves the
// document alone.
package main
