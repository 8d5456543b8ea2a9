// Package wholefile writes files that others, who may look at any time, see
// whole or not at all: the content goes into a file of another name first, which
// is then renamed. Each caller says how much of that is to survive a crash of the
// machine, and what an interrupted write leaves behind, so that it can be found
// and removed.
//
// Known libraries do not fit: github.com/google/renameio syncs every file, for
// which preparing a claim would wait several times, never its folder, and leaves
// files of random names.
package wholefile
