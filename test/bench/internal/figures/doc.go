// Package figures holds what a benchmark found: samples as they were taken,
// the figures computed from them, and what is demanded of the figures.
package figures
