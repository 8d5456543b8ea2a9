// Package controller measures how quickly the controller allocates claims, one at
// a time, many at once and in gangs, and how much memory it takes, in a fleet of a
// thousand machines. Then both allocators fight over machines that change hands.
//
// The API server, the scheduler and the controller manager are real ones, and the
// controller is the program of our image, with the permissions that the manifests
// give it. The machines are in the API only.
package controller
