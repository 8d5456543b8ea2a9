// Package faultpoint marks the steps at which tests stop the plugin, so that
// what a crash leaves behind is tested at every one of them, not only where
// somebody thought of it.
//
// A step is marked with a call of [At]. It costs nothing and does nothing
// unless the program was built with the tag "faultpoints"; then the variable
// FAULTPOINT=<step>=kill or =error, chooses where and how the program fails.
package faultpoint
