// Package parts builds the programs of the test cluster from Go modules and
// keeps them in a cache. What is built is keyed by its content (module files,
// sources, flags, Go version), so that clones share the cache and a change of
// one part rebuilds that part only.
package parts
