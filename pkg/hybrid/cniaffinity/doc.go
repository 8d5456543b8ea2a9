// Package cniaffinity keeps DaemonSets of network plugins on hybrid or on cloud
// nodes by required node affinity, and gives back what their owners had. What was
// there before lies in an annotation of the object that was changed, written by the
// same request as the change, so nothing else has to be remembered and every write
// may be the last one.
package cniaffinity
