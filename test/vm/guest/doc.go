// The guest program is the first process of the test guest: it mounts what
// programs expect, loads the drivers, sets the link to the machine outside up,
// and obeys orders that come over it (internal/agent). When it ends, the guest
// turns itself off.
package main
