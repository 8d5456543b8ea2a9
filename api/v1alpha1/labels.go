package v1alpha1

// LabelManagedClass is the label of DeviceClasses whose claims are allocated by
// this project's controller. The value is "true".
const LabelManagedClass = "eks-hybrid-dra/managed"

// Labels of ResourceClaims, and of the metadata that a ResourceClaimTemplate
// gives its claims.
const (
	// LabelGang names a gang: claims of one namespace that are allocated all or
	// none.
	LabelGang = "eks-hybrid-dra/gang"
	// LabelGangSize is how many claims the gang has, a positive number.
	LabelGangSize = "eks-hybrid-dra/gang-size"
	// LabelGangTimeout is how long a gang may be incomplete before that is
	// reported, as Go writes durations, such as "5m".
	LabelGangTimeout = "eks-hybrid-dra/gang-timeout"
	// LabelUnusedAfter is how long a claim that the controller has allocated may
	// have no consumer before its devices are freed, as Go writes durations,
	// such as "10m".
	LabelUnusedAfter = "eks-hybrid-dra/unused-after"
)
