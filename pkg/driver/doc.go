// Package driver is the DRA side of the node agent: it publishes what the
// families of hardware find as ResourceSlices, and prepares what claims were
// allocated by asking the family that owns each device.
//
// It knows hardware only through [Family].
package driver
