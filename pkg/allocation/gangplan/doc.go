// Package gangplan keeps what the controller is about to give a gang of claims
// where a controller that leads next finds it: a gang is allocated all or none,
// and the API can write only one claim at a time.
package gangplan
