// Package claimstore keeps, on disk, which claim holds which device.
//
// Two kinds of small files carry all of it. A holding, one for each physical
// thing that a device occupies, is created exclusively: whoever creates it has
// the thing, whichever process it runs in, and a crash cannot lose it. A claim
// record is written once all of a claim is ready, and is what later calls
// answer from. No file holds more than one claim, so claims never wait for
// each other, and nothing is true in memory alone: two plugin instances may
// run side by side.
package claimstore
