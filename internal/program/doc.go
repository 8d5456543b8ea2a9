// Package program is what our programs have in common on their command line:
// commands with flags of their own and those of logging, values of flags that are
// checked all at once, and an end by a signal.
package program
