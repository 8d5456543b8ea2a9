// Package machine brings the test guest up, runs programs in it, and takes it
// down: see [Up] and [Machine]. The guest outlives the program that started it,
// is found again by its name, and turns itself off when its time is over.
package machine
