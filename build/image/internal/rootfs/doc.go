// Package rootfs decides which files an image for a set of programs has and
// where they lie: the programs, the shared libraries that they need, and the
// few files that every Linux program may expect.
package rootfs
