package figures

import (
	"math"
	"slices"
	"time"
)

// Samples are raw measurements in the order in which they were taken.
type Samples []float64

// Milliseconds is a duration as a sample.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Megabytes is a number of bytes as a sample, in units of a million bytes.
func Megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }

// Percentile returns the smallest sample that at least p percent of all are
// not above (nearest rank). It is NaN where there is no sample.
func (s Samples) Percentile(p float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median is the 50th percentile.
func (s Samples) Median() float64 { return s.Percentile(50) }

// Max is the largest sample.
func (s Samples) Max() float64 { return s.Percentile(100) }
