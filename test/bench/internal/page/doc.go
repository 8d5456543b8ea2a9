// Package page keeps the measured part of a document up to date: what lies
// between two marker lines is written by the benchmark, what is around them by
// people.
package page
