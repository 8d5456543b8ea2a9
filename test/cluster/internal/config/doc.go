// Package config says what a test cluster is: what the user asked for, where
// each file of it lies, and the configuration and command line of each
// component. It only computes and writes files; it starts nothing.
package config
