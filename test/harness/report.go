package harness

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// reportTimeout bounds how long is spent on telling what went wrong.
const reportTimeout = 20 * time.Second

// Report writes down what a person needs to see why something failed: objects,
// events, and what the driver logged. It goes on where a part of it fails, and
// works after ctx is done.
func (c *Cluster) Report(ctx context.Context, out io.Writer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*reportTimeout)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods,resourceclaims,deviceclasses", "-A", "-o", "wide"},
		{"get", "resourceslices", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.metadata.creationTimestamp"},
		{"logs", "-n", Namespace, "-l", pluginPods, "--tail=200", "--prefix"},
	} {
		text, err := c.Kubectl(ctx, args...)
		if err != nil {
			text += err.Error()
		}
		// What cannot be written can be told nobody either.
		_, _ = fmt.Fprintf(out, "--- kubectl %s\n%s\n", strings.Join(args, " "), strings.TrimSpace(text))
	}
}
