package figures

import (
	"fmt"
	"io"
	"strconv"
	"sync"
)

// Row is one figure, of our driver and of the one it is compared with.
type Row struct {
	// Name is in the style of metrics, such as prepare_alone_p50.
	Name string
	Unit string
	Ours float64
	// Peer is nil where the other driver was not measured.
	Peer    *float64
	Demands []Demand
}

// Demand is what a figure of ours should be.
type Demand struct {
	Text string
	Met  bool
}

// Report is what a benchmark found.
type Report struct {
	Rows []Row
	// Samples are the raw measurements by their name and whose they are.
	Samples map[string]map[string]Samples
	// Notes tell what the figures leave out, and why.
	Notes []string

	mu sync.Mutex
}

// Keep keeps the samples that a driver gave. It may be called from several
// goroutines.
func (r *Report) Keep(name, whose string, samples Samples) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Samples == nil {
		r.Samples = map[string]map[string]Samples{}
	}
	if r.Samples[name] == nil {
		r.Samples[name] = map[string]Samples{}
	}
	r.Samples[name][whose] = append(r.Samples[name][whose], samples...)
}

// Add adds a figure that is computed, for each of both drivers, from the
// samples kept under a name.
func (r *Report) Add(name, unit, from string, compute func(Samples) float64, wants ...Want) {
	row := Row{Name: name, Unit: unit, Ours: compute(r.Samples[from][Ours])}
	if peer := r.Samples[from][Peer]; len(peer) > 0 {
		value := compute(peer)
		row.Peer = &value
	}
	for _, want := range wants {
		if d := want(row); d != nil {
			row.Demands = append(row.Demands, *d)
		}
	}
	r.Rows = append(r.Rows, row)
}

// Ours and Peer say whose samples they are.
const (
	Ours = "ours"
	Peer = "peer"
)

// Want makes a demand on a figure. It returns nil where the demand cannot be
// judged.
type Want func(Row) *Demand

// AtMost demands that the figure is no larger than a limit.
func AtMost(limit float64) Want {
	return func(r Row) *Demand {
		return &Demand{Text: "≤ " + Format(limit) + " " + r.Unit, Met: r.Ours <= limit}
	}
}

// TimesPeer demands that the figure is no larger than the peer's times a
// factor.
func TimesPeer(factor float64) Want {
	return func(r Row) *Demand {
		if r.Peer == nil {
			return nil
		}
		return &Demand{Text: fmt.Sprintf("≤ %s × peer", Format(factor)), Met: r.Ours <= factor**r.Peer}
	}
}

// BelowPeer demands that the figure is smaller than the peer's.
func BelowPeer(r Row) *Demand {
	if r.Peer == nil {
		return nil
	}
	return &Demand{Text: "below peer", Met: r.Ours < *r.Peer}
}

// AtMostAbove demands that the figure is at most so much larger than another
// value.
func AtMostAbove(base, more float64, of string) Want {
	return func(r Row) *Demand {
		return &Demand{Text: fmt.Sprintf("≤ %s + %s %s", of, Format(more), r.Unit), Met: r.Ours <= base+more}
	}
}

// AtMostTimes demands that the figure is at most another value times a factor.
func AtMostTimes(base, factor float64, of string) Want {
	return func(r Row) *Demand {
		return &Demand{Text: fmt.Sprintf("≤ %s × %s", Format(factor), of), Met: r.Ours <= base*factor}
	}
}

// AtLeastTimes demands that the figure is no smaller than another value times a
// factor.
func AtLeastTimes(base, factor float64, of string) Want {
	return func(r Row) *Demand {
		return &Demand{Text: fmt.Sprintf("≥ %s × %s", Format(factor), of), Met: r.Ours >= base*factor}
	}
}

// Print writes one line per figure, for programs to read.
func (r *Report) Print(out io.Writer) error {
	for _, row := range r.Rows {
		if _, err := fmt.Fprintf(out, "%s %s %s\n", row.Name, Format(row.Ours), row.Unit); err != nil {
			return fmt.Errorf("print the figures: %w", err)
		}
	}
	for _, row := range r.Rows {
		if row.Peer == nil {
			continue
		}
		if _, err := fmt.Fprintf(out, "peer_%s %s %s\n", row.Name, Format(*row.Peer), row.Unit); err != nil {
			return fmt.Errorf("print the figures: %w", err)
		}
	}
	return nil
}

// Format writes a value with as many digits as it deserves.
func Format(value float64) string {
	digits := 0
	switch {
	case value == float64(int64(value)):
	case value < 10:
		digits = 2
	case value < 1000:
		digits = 1
	}
	return strconv.FormatFloat(value, 'f', digits, 64)
}
