// Package device is the vocabulary that every other package speaks: what a
// device is, what is wrong with one, what a claim was granted, and what a
// container must be given to use it.
//
// It knows no hardware and no DRA call, and imports nothing of this project.
package device
