// Package provision makes VFs: it gives a PF the number of VFs, the MTU and the
// InfiniBand GUIDs that the configuration asks for.
//
// It only ever adds. A PF that has VFs keeps them, whatever their number, and a
// VF that a claim or anybody else uses is not touched. PFs are set up side by
// side, each bounded in time, so that one that hangs in its driver holds up no
// other; what fails is tried again.
package provision
