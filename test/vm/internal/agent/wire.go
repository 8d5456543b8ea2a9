package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Port is where the agent listens in the guest.
const Port = 1024

// Orders that a connection can begin with.
const (
	opRun      = "run"
	opStart    = "start"
	opStop     = "stop"
	opPowerOff = "poweroff"
	opCrash    = "crash"
)

// Command is a program to run in the guest.
type Command struct {
	// Args are the program and its arguments.
	Args []string `json:"args,omitempty"`
	// Env is added to the agent's own environment, as NAME=value.
	Env []string `json:"env,omitempty"`
	// Dir is the working folder; empty is /.
	Dir string `json:"dir,omitempty"`
}

type request struct {
	Op string `json:"op"`
	// Name is a service's.
	Name string `json:"name,omitempty"`
	// Signal ends a service; 0 is SIGTERM.
	Signal int `json:"signal,omitempty"`
	Command
}

// result ends every answer.
type result struct {
	// Code is the program's exit status, 128 and more for signals.
	Code int `json:"code"`
	// Error says why there is no exit status.
	Error string `json:"error,omitempty"`
}

// Kinds of frames of an answer.
const (
	frameOut byte = iota + 1
	frameErr
	frameResult
)

// maxFrame bounds what a broken stream can make a reader allocate.
const maxFrame = 1 << 20

// writeFrame writes a kind, a length and the payload, at once.
func writeFrame(out io.Writer, kind byte, payload []byte) error {
	frame := make([]byte, 5, 5+len(payload))
	frame[0] = kind
	binary.BigEndian.PutUint32(frame[1:], uint32(len(payload)))
	_, err := out.Write(append(frame, payload...))
	return err
}

// readFrames copies output until the result comes.
func readFrames(in io.Reader, out, errOut io.Writer) (result, error) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return result{}, fmt.Errorf("the guest broke the connection off: %w", err)
		}
		size := binary.BigEndian.Uint32(head[1:])
		if size > maxFrame {
			return result{}, fmt.Errorf("the guest sent %d bytes at once", size)
		}
		payload := make([]byte, size)
		if _, err := io.ReadFull(in, payload); err != nil {
			return result{}, fmt.Errorf("the guest broke the connection off: %w", err)
		}
		var err error
		switch head[0] {
		case frameOut:
			_, err = out.Write(payload)
		case frameErr:
			_, err = errOut.Write(payload)
		case frameResult:
			var r result
			err = json.Unmarshal(payload, &r)
			return r, err
		default:
			err = errors.New("the guest sent an unknown frame")
		}
		if err != nil {
			return result{}, err
		}
	}
}
