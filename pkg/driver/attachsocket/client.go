package attachsocket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// beginTimeout bounds the wait for an instance to say that it has begun.
	beginTimeout = 2 * time.Second
	// answerGrace is what an instance may take longer than it was given, to
	// say why it has failed.
	answerGrace = 5 * time.Second
)

// Call asks one instance, the one that listens on the socket of that name. An
// error means that the instance has not answered; the devices may be attached
// or not.
func Call(ctx context.Context, path, name string, r Request, netns *os.File) (_ Answer, err error) {
	f, err := openFolder(path)
	if err != nil {
		return Answer{}, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	conn, err := f.dial(ctx, name)
	if err != nil {
		var opErr *net.OpError
		if errors.As(err, &opErr) {
			err = opErr.Err // without an address that nobody knows
		}
		return Answer{}, fmt.Errorf("%s: %w", name, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) }) // fails only on a closed connection
	defer stop()

	data, err := json.Marshal(r)
	if err != nil {
		return Answer{}, fmt.Errorf("encode the request: %w", err)
	}
	if err := setDeadline(ctx, conn, beginTimeout); err != nil {
		return Answer{}, err
	}
	if _, _, err := conn.WriteMsgUnix(data, unix.UnixRights(int(netns.Fd())), nil); err != nil {
		return Answer{}, fmt.Errorf("%s: send the request: %w", name, err)
	}
	if err := receive(conn, &begun{}); err != nil {
		return Answer{}, fmt.Errorf("%s: the plugin does not begin: %w", name, err)
	}
	if err := setDeadline(ctx, conn, time.Duration(r.WaitMilliseconds)*time.Millisecond+answerGrace); err != nil {
		return Answer{}, err
	}
	var a Answer
	if err := receive(conn, &a); err != nil {
		return Answer{}, fmt.Errorf("%s: the plugin has begun and does not answer: %w", name, err)
	}
	return a, nil
}

// setDeadline gives the connection some time more, unless ctx is done: the end
// of ctx, which sets a deadline too, may have come a moment ago.
func setDeadline(ctx context.Context, conn *net.UnixConn, more time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(more)); err != nil {
		return err
	}
	return ctx.Err()
}

func receive(conn *net.UnixConn, into any) error {
	buffer := make([]byte, maxMessage)
	n, _, flags, _, err := conn.ReadMsgUnix(buffer, nil)
	switch {
	case err != nil:
		return err
	case n == 0:
		return io.ErrUnexpectedEOF
	case flags&unix.MSG_TRUNC != 0:
		return fmt.Errorf("a message of more than %d bytes", maxMessage)
	}
	return json.Unmarshal(buffer[:n], into)
}
