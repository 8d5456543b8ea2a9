package attachsocket

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// requestTimeout bounds the wait for the request of a caller, who has it
	// ready before it calls.
	requestTimeout = 5 * time.Second
	// maxError is how much of an error is sent, in bytes.
	maxError = 8 << 10
)

// ErrNoRequest is a caller that has only looked whether somebody listens.
var ErrNoRequest = errors.New("the caller has asked nothing")

// Listener is the socket of one instance.
type Listener struct {
	*net.UnixListener
	folder folder
	name   string
	file   fs.FileInfo
}

// Listen makes the socket of an instance, in a folder that only root may
// enter. A socket of the same name is replaced: its instance is gone, or about
// to.
func Listen(path, instance string) (_ *Listener, err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	f, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	unlock, err := f.lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	l := &Listener{folder: f, name: instance + suffix}
	temp := newPrefix + l.name
	if err := os.Remove(f.path(temp)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if l.UnixListener, err = net.ListenUnix(network, f.address(temp)); err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if l.file, err = os.Lstat(f.path(temp)); err == nil {
		err = os.Rename(f.path(temp), f.path(l.name))
	}
	if err != nil {
		return nil, errors.Join(err, l.UnixListener.Close())
	}
	return l, nil
}

// Close ends the listening and removes the socket, unless another instance has
// taken its name.
func (l *Listener) Close() (err error) {
	defer func() { err = errors.Join(err, l.folder.close()) }()
	if err := l.UnixListener.Close(); err != nil {
		return err
	}
	unlock, err := l.folder.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	now, err := os.Lstat(l.folder.path(l.name))
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !os.SameFile(now, l.file)) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(l.folder.path(l.name))
}

// Conn is one call.
type Conn struct{ conn *net.UnixConn }

// Accept waits for the next call.
func (l *Listener) Accept() (*Conn, error) {
	conn, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return &Conn{conn}, nil
}

// Close hangs up.
func (c *Conn) Close() error { return c.conn.Close() }

// Receive returns the request and the network namespace that came with it, and
// tells the caller that the work begins. The caller must be root.
func (c *Conn) Receive() (_ Request, netns *os.File, err error) {
	if err := c.checkPeer(); err != nil {
		return Request{}, nil, err
	}
	if err := c.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return Request{}, nil, err
	}
	buffer, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, rightsLen, flags, _, err := c.conn.ReadMsgUnix(buffer, rights)
	if errors.Is(err, io.EOF) || (err == nil && n == 0) {
		return Request{}, nil, ErrNoRequest
	}
	if err != nil {
		return Request{}, nil, fmt.Errorf("receive a request: %w", err)
	}
	netns, err = descriptor(rights[:rightsLen])
	if err != nil {
		return Request{}, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, netns.Close())
		}
	}()
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return Request{}, nil, fmt.Errorf("a request of more than %d bytes, or with more than one descriptor", maxMessage)
	}
	var r Request
	if err := json.Unmarshal(buffer[:n], &r); err != nil {
		return Request{}, nil, fmt.Errorf("decode a request: %w", err)
	}
	// A caller that is gone gets nothing done: it may have asked another
	// instance meanwhile.
	if err := c.send(begun{Begun: true}); err != nil {
		return Request{}, nil, fmt.Errorf("the caller is gone: %w", err)
	}
	return r, netns, nil
}

// Answer ends the call.
func (c *Conn) Answer(a Answer) error {
	if len(a.Error) > maxError {
		a.Error = a.Error[:maxError] + "…"
	}
	return c.send(a)
}

func (c *Conn) send(message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if err := c.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	_, err = c.conn.Write(data)
	return err
}

func (c *Conn) checkPeer() error {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return err
	}
	var (
		peer    *unix.Ucred
		peerErr error
	)
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if peerErr != nil {
		return fmt.Errorf("ask who calls: %w", peerErr)
	}
	return allow(peer.Uid)
}

// allow refuses everybody who is not root.
func allow(uid uint32) error {
	if uid != 0 {
		return fmt.Errorf("user %d may not ask for an attachment: only root may", uid)
	}
	return nil
}

// descriptor returns the one open file that came with a request.
func descriptor(rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("decode a request's descriptor: %w", err)
	}
	if len(messages) != 1 {
		return nil, errors.New("a request without a descriptor: want the network namespace")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, fmt.Errorf("decode a request's descriptor: %w", err)
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, errors.Join(fmt.Errorf("a request with %d descriptors: want one, the network namespace", len(fds)), err)
	}
	return os.NewFile(uintptr(fds[0]), "the request's descriptor"), nil
}
