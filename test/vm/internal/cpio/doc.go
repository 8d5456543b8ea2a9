// Package cpio writes the archives that a Linux kernel unpacks as its first
// root file system. A kernel reads several of them one after the other, so a
// small archive on the end of a big one adds or replaces files.
package cpio
