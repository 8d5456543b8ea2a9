// The vm program runs tests in a QEMU guest that has real SR-IOV network cards,
// made of Debian's packages alone. README.md beside this file tells how.
package main
