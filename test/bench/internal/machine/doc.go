// Package machine tells under which conditions a benchmark ran, as the machine
// itself reports them.
package machine
