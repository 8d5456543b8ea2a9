// Package oci makes a container image from files, without a container engine,
// and saves or pushes it.
//
// The same files always make the same image: every entry is owned by root and
// bears the same time, and entries are sorted.
package oci
