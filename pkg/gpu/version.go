package gpu

import (
	"fmt"
	"strconv"
	"strings"
)

// semanticVersion makes a version of NVIDIA's one that the API server accepts:
// exactly three numbers without leading zeros. "550.54" becomes "550.54.0",
// "535.161.08" becomes "535.161.8". It tells false for what is no version.
func semanticVersion(s string) (string, bool) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) > 3 {
		return "", false
	}
	numbers := [3]uint64{}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return "", false
		}
		numbers[i] = n
	}
	return fmt.Sprintf("%d.%d.%d", numbers[0], numbers[1], numbers[2]), true
}

// cudaVersion turns NVML's number, such as 12040, into a version.
func cudaVersion(n int) string {
	return fmt.Sprintf("%d.%d.0", n/1000, n%1000/10)
}
