// Package sharedlib finds the shared libraries that programs need in order to
// start in a root file system that holds nothing else.
//
// What a program needs is read from its ELF header, and where that library
// lies is asked of the C compiler that linked the program, so that the two
// always fit together.
package sharedlib
