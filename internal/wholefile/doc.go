// Package wholefile is for files that are whole or not there at all, whoever looks
// and whenever: the content goes into a file of another name first, which is then
// renamed. Each caller says how much of that is to survive a crash of the machine,
// and what an interrupted write leaves behind, so that it can be found and removed.
// A file that makes no sense all the same is set aside.
//
// Known libraries do not fit: github.com/google/renameio syncs every file, for
// which preparing a claim would wait several times, never its folder, and leaves
// files of random names.
package wholefile
