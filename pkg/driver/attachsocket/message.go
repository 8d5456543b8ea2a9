package attachsocket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Folder is where the sockets lie, below the driver's data folder.
const Folder = "attach"

// maxMessage bounds a packet, in bytes. Both sides together need far less.
const maxMessage = 32 << 10

// Pod is the pod that a container belongs to.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// Request asks for all devices of a claim in the network namespace that goes
// with it.
type Request struct {
	// Claim is the UID of the claim.
	Claim string `json:"claim"`
	Pod   Pod    `json:"pod"`
	// SandboxID is the container runtime's name for the pod's sandbox.
	SandboxID string `json:"sandboxID"`
	// NetnsPath is where the runtime has bound the namespace on the host, or
	// empty where that is not known.
	NetnsPath string `json:"netnsPath"`
	// WaitMilliseconds is how long the answer is waited for.
	WaitMilliseconds int64 `json:"waitMilliseconds"`
}

// Answer ends a call.
type Answer struct {
	// Error is one line for the pod's event. Empty: all devices are there.
	Error string `json:"error,omitempty"`
	// Retry says that another instance, or this one later, may do better.
	Retry bool `json:"retry,omitempty"`
}

// begun is the packet that comes before an answer.
type begun struct {
	Begun bool `json:"begun"`
}

// Identity returns what tells a network namespace from all others that exist
// at the time, "device:inode". Any other file is an error.
func Identity(netns *os.File) (string, error) {
	raw, err := netns.SyscallConn()
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", netns.Name(), err)
	}
	var (
		stat    unix.Stat_t
		kind    int
		kindErr error
		statErr error
	)
	err = raw.Control(func(fd uintptr) {
		kind, kindErr = unix.IoctlRetInt(int(fd), unix.NS_GET_NSTYPE)
		statErr = unix.Fstat(int(fd), &stat)
	})
	switch {
	case kindErr != nil || (err == nil && kind != unix.CLONE_NEWNET):
		return "", fmt.Errorf("%s is not a network namespace", netns.Name())
	case err != nil || statErr != nil:
		return "", fmt.Errorf("look at %s: %w", netns.Name(), errors.Join(err, statErr))
	}
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino), nil
}
