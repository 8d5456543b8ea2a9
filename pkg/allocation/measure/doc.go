// Package measure holds the metrics about claims that admins watch: how long
// claims wait, how many do, what goes wrong, and how much of the fleet is given.
// The handlers of the controller tell it what they see and do; what can be
// counted in the view of the fleet is counted when somebody asks for it.
package measure
