// Package supervisor is what runs as PID 1 of a set of namespaces: it starts
// and stops commands, restarts those that end by themselves as a service
// manager would, reaps what is orphaned, and takes orders over a Unix socket.
// When it dies, the kernel ends every process in its PID namespace.
package supervisor
