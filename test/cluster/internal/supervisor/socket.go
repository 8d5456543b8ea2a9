package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"k8s.io/klog/v2"
)

// Request is one order. Each connection carries one.
type Request struct {
	// Op is start, stop, kill, restart or status.
	Op string `json:"op"`
	// Name is the command; empty for status.
	Name string `json:"name,omitempty"`
	// Flags are arguments of the form --flag=value. A command that is
	// restarted has them from then on, in place of those of the same flags.
	Flags []string `json:"flags,omitempty"`
}

// Response answers a request.
type Response struct {
	Error    string   `json:"error,omitempty"`
	Statuses []Status `json:"statuses,omitempty"`
}

// Serve answers requests on the socket until the context ends.
func (s *Supervisor) Serve(ctx context.Context, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept an order: %w", err)
		}
		go s.answer(ctx, conn)
	}
}

// Listen makes the socket, in place of one that a dead supervisor left.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove an old socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	return listener, nil
}

func (s *Supervisor) answer(ctx context.Context, conn net.Conn) {
	logger := klog.FromContext(ctx)
	defer func() {
		if err := conn.Close(); err != nil {
			logger.Error(err, "Closing a connection failed")
		}
	}()
	var request Request
	if err := json.NewDecoder(conn).Decode(&request); err != nil {
		logger.Error(err, "An order could not be read")
		return
	}
	logger.V(1).Info("Order", "op", request.Op, "command", request.Name)
	response := Response{}
	if err := s.obey(ctx, request); err != nil {
		response.Error = err.Error()
	}
	response.Statuses = s.Status()
	if err := json.NewEncoder(conn).Encode(response); err != nil {
		logger.Error(err, "An answer could not be sent", "op", request.Op)
	}
}

func (s *Supervisor) obey(ctx context.Context, r Request) error {
	switch r.Op {
	case "status":
		return nil
	case "start":
		return s.Start(ctx, r.Name)
	case "stop":
		return s.Stop(ctx, r.Name, false)
	case "kill":
		return s.Stop(ctx, r.Name, true)
	case "restart":
		if err := s.Stop(ctx, r.Name, false); err != nil {
			return err
		}
		if err := s.setFlags(r.Name, r.Flags); err != nil {
			return err
		}
		return s.Start(ctx, r.Name)
	}
	return fmt.Errorf("the order %q is not known", r.Op)
}

// Send gives an order to the supervisor that listens at path.
func Send(ctx context.Context, path string, request Request) ([]Status, error) {
	ctx, cancel := context.WithTimeout(ctx, termGrace+10*time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster's supervisor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	response, err := exchange(conn, request)
	if err := errors.Join(err, conn.Close()); err != nil {
		return nil, fmt.Errorf("%s %s: %w", request.Op, request.Name, err)
	}
	if response.Error != "" {
		return response.Statuses, fmt.Errorf("%s %s: %s", request.Op, request.Name, response.Error)
	}
	return response.Statuses, nil
}

func exchange(conn net.Conn, request Request) (Response, error) {
	var response Response
	if err := json.NewEncoder(conn).Encode(request); err != nil {
		return response, fmt.Errorf("send the order: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&response); err != nil {
		return response, fmt.Errorf("read the answer: %w", err)
	}
	return response, nil
}
