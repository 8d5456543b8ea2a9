// Command bench measures our driver, and another one for comparison, in a real
// cluster that it brings up for itself. It prints one line per figure and
// writes docs/performance.md with the conditions and a plot:
//
//	go run ./test/bench prepare
//	go run ./test/bench attach
//	go run ./test/bench pairs
//	go run ./test/bench controller
//
// The first measures claims, the second virtual functions, the third how quickly
// GPUs with a virtual function beside them are found, the fourth how quickly the
// controller allocates claims in a large fleet. With BENCH_QUICK=1 it takes few
// samples, a minute or two, and leaves the document alone.
package main
