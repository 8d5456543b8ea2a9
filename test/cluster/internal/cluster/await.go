package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/supervisor"
)

// mostQuickEnds is how often in a row a component may end right after its start
// before it is given up: one with a wrong flag does nothing else.
const mostQuickEnds = 3

// await is poll, but gives up as soon as a component keeps ending.
func (c *Cluster) await(ctx context.Context, timeout time.Duration, try func() error) error {
	return poll(ctx, timeout, func() error {
		err := try()
		if err == nil {
			return nil
		}
		if dying := c.dying(ctx); dying != nil {
			return hopelessError{dying}
		}
		return err
	})
}

// dying names a component that keeps ending, with the last it said.
func (c *Cluster) dying(ctx context.Context) error {
	for _, role := range config.Roles() {
		// A role that does not answer is told of by what is waited for.
		statuses, _ := supervisor.Send(ctx, c.State.Socket(role), supervisor.Request{Op: "status"})
		for _, s := range statuses {
			if s.QuickEnds < mostQuickEnds {
				continue
			}
			log := filepath.Join(c.State.Logs(), s.Name+".log")
			line, err := lastLine(log)
			if err != nil {
				line = err.Error()
			}
			return fmt.Errorf("%s ends right after each start (%s); the last line of %s is: %s", s.Name, s.LastExit, log, line)
		}
	}
	return nil
}

// lastLine returns the last line of a file that is not empty.
func lastLine(path string) (line string, err error) {
	const end = 64 << 10
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open a log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("look at a log: %w", err)
	}
	content, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-end), end))
	if err != nil {
		return "", fmt.Errorf("read a log: %w", err)
	}
	content = bytes.TrimSpace(content)
	return string(content[bytes.LastIndexByte(content, '\n')+1:]), nil
}
