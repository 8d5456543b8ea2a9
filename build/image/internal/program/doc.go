// Package program compiles the Go programs that go into an image.
package program
