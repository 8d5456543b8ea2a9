package gpu

import (
	"fmt"

	"k8s.io/klog/v2"
)

// quietLog takes what nvcdi logs. It warns about each optional file that it
// does not find, which on a machine without graphics is most of them, so all
// of it goes below the levels that people run with.
type quietLog struct {
	logger klog.Logger
}

const quietLevel = 5

func (l quietLog) log(level, format string, args []any) {
	if logger := l.logger.V(quietLevel); logger.Enabled() {
		logger.Info(fmt.Sprintf(format, args...), "source", "nvcdi", "severity", level)
	}
}

func (l quietLog) Tracef(format string, args ...any)   { l.log("trace", format, args) }
func (l quietLog) Debugf(format string, args ...any)   { l.log("debug", format, args) }
func (l quietLog) Infof(format string, args ...any)    { l.log("info", format, args) }
func (l quietLog) Warningf(format string, args ...any) { l.log("warning", format, args) }
func (l quietLog) Errorf(format string, args ...any)   { l.log("error", format, args) }
