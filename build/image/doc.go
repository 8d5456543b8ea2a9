// Command image builds the container image of this project's programs from
// nothing, without a container engine: it compiles the programs, adds the
// shared libraries that they need, and saves or pushes the result.
package main
