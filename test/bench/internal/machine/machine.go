package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
)

// Conditions are what a reader must know to compare figures with others.
type Conditions struct {
	Date        time.Time
	Processor   string
	Cores       int
	MemoryBytes int64
	Kernel      string
	Go          string
	// LoadBefore and LoadAfter are the machine's load averages over one
	// minute. What else runs on a shared machine shows in the first.
	LoadBefore, LoadAfter float64
	// FileSystem is that of the plugins' folders, with its options, and
	// SyncMedian how long a new file of 4 KiB takes there until it is on the
	// disk, in milliseconds.
	FileSystem string
	SyncMedian float64
}

// Look returns the conditions now, with a few writes to dir.
func Look(dir string) (Conditions, error) {
	c := Conditions{Date: time.Now(), Cores: runtime.NumCPU(), Go: runtime.Version()}
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return c, fmt.Errorf("look at the processor: %w", err)
	}
	if m := regexp.MustCompile(`(?m)^model name\s*:\s*(.*)$`).FindSubmatch(cpus); m != nil {
		c.Processor = string(m[1])
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return c, fmt.Errorf("look at the memory: %w", err)
	}
	c.MemoryBytes = int64(info.Totalram) * int64(info.Unit)
	var names unix.Utsname
	if err := unix.Uname(&names); err != nil {
		return c, fmt.Errorf("look at the kernel: %w", err)
	}
	c.Kernel = unix.ByteSliceToString(names.Release[:])
	if c.LoadBefore, err = Load(); err != nil {
		return c, err
	}
	if c.FileSystem, err = fileSystem(dir); err != nil {
		return c, err
	}
	c.SyncMedian, err = syncMedian(dir)
	return c, err
}

// Load returns the machine's load average over one minute.
func Load() (float64, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, fmt.Errorf("look at the load: %w", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, fmt.Errorf("look at the load: %w", err)
	}
	return load, nil
}

// fileSystem returns the type and the options of the file system that a folder
// is in: that of the longest mount point above it.
func fileSystem(dir string) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("look at the file systems: %w", err)
	}
	best, kind := "", ""
	for line := range bytes.Lines(mounts) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 {
			continue
		}
		point := fields[1]
		within := point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
		if within && len(point) >= len(best) {
			best, kind = point, fields[2]+" ("+fields[3]+")"
		}
	}
	return kind, nil
}

// syncMedian measures what every durable write of a new file costs.
func syncMedian(dir string) (float64, error) {
	const writes = 50
	var samples figures.Samples
	for n := range writes {
		path := filepath.Join(dir, fmt.Sprintf("sync-probe-%d", n))
		start := time.Now()
		err := syncedWrite(path, make([]byte, 4096))
		samples = append(samples, figures.Milliseconds(time.Since(start)))
		if err = errors.Join(err, os.Remove(path)); err != nil {
			return 0, fmt.Errorf("measure a synced write: %w", err)
		}
	}
	return samples.Median(), nil
}

func syncedWrite(path string, data []byte) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Sync()
}
