package registrytrust

import (
	"slices"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust/containerdconfig"
)

// Report is what one round found.
type Report struct {
	// Problems are those of the whole node.
	Problems []*Problem
	// ConfigPath is whether containerd looks at what is written.
	ConfigPath containerdconfig.State
	Registries []RegistryReport
}

// RegistryReport is what one round found of one registry.
type RegistryReport struct {
	Host string
	// Trusted says whether a handshake succeeded.
	Trusted bool
	// Problems may be there while the registry is trusted, because of what was
	// written before.
	Problems []*Problem
	// CAExpires and CertificateExpires are zero where they are not known.
	CAExpires, CertificateExpires time.Time
}

// failing says whether another look is worth while soon: somebody may be
// putting things right.
func (r Report) failing() bool {
	return len(r.Problems) > 0 || slices.ContainsFunc(r.Registries, func(r RegistryReport) bool { return len(r.Problems) > 0 })
}

// reasonsOf returns each reason once.
func reasonsOf(problems []*Problem) []string {
	var reasons []string
	for _, p := range problems {
		if !slices.Contains(reasons, string(p.Reason)) {
			reasons = append(reasons, string(p.Reason))
		}
	}
	slices.Sort(reasons)
	return reasons
}
