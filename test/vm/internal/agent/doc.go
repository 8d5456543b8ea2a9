// Package agent is the way into the guest: one TCP connection is one order,
// such as a program to run, and its output comes back as it appears. A
// connection that is closed ends the program.
package agent
