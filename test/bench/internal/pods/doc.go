// Package pods starts pods as users do, with claims and without, and tells when
// they were seen to run.
package pods
