package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// footprint is what a process takes up.
type footprint struct {
	goroutines, descriptors, files int
	rssKiB                         int
}

func (p *plugin) footprint() footprint {
	p.t.Helper()
	proc := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	f := footprint{
		descriptors: len(dirEntries(p.t, filepath.Join(proc, "fd"))),
		files:       len(p.node.left()),
	}
	var metrics bytes.Buffer
	if err := p.get("metrics", &metrics); err != nil {
		p.t.Fatal(err)
	}
	f.goroutines = number(p.t, metrics.String(), "go_goroutines")
	f.rssKiB = number(p.t, mustRead(p.t, filepath.Join(proc, "status")), "VmRSS:")
	return f
}

// number returns the number that follows a word at the start of a line.
func number(t *testing.T, text, word string) int {
	t.Helper()
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != word {
			continue
		}
		value, err := strconv.Atoi(fields[1])
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	t.Fatalf("no line %s", word)
	return 0
}

// What claims come and go, also such that fail, leaves nothing in the process.
func TestNoGrowth(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.start(serving())
	claims := n.oneEach()
	a := n.allocation("gpu-0")
	a.Results[0].Pool = "another-pool"
	bad := n.allocate(a)
	cycle := func(times int) {
		for range times {
			for _, c := range claims {
				if err := p.prepareUnchecked(c); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.prepareUnchecked(bad); err == nil {
				t.Fatal("a claim of another pool was prepared")
			}
			for _, c := range claims {
				p.mustUnprepare(c)
			}
		}
	}
	eventually(t, "ready", p.ready)
	cycle(20) // caches and pools fill
	before := p.footprint()
	cycle(60)
	after := p.footprint()
	t.Logf("before %+v, after 480 claims more %+v", before, after)
	// A few come and go with connections and timers.
	if after.goroutines > before.goroutines+5 || after.descriptors > before.descriptors+3 || after.files != 0 {
		t.Errorf("grown from %+v to %+v", before, after)
	}
	if after.rssKiB > before.rssKiB+6<<10 {
		t.Errorf("memory grew from %d KiB to %d KiB", before.rssKiB, after.rssKiB)
	}
}
