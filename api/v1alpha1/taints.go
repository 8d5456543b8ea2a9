package v1alpha1

// TaintUnhealthy is the key of the taint, of effect NoSchedule, that a device
// gets in its ResourceSlice for each problem it has. The value is the problem's
// reason, such as "LinkDown". A claim that tolerates the key with operator
// Exists is given such devices too.
const TaintUnhealthy = "eks-hybrid-dra/unhealthy"

// TaintManaged is the key of the taint, of effect NoSchedule, that a device gets
// in its ResourceSlice while kube-scheduler must not give it away. The value
// says who may: [ManagedByController] or [ManagedSettling]. No claim may
// tolerate it: an admission policy refuses those that would.
const TaintManaged = "eks-hybrid-dra/managed"

// Values of [TaintManaged].
const (
	// ManagedByController is for devices that this project's controller gives
	// away, and nobody else.
	ManagedByController = "controller"
	// ManagedSettling is for devices that change hands between kube-scheduler
	// and the controller: nobody gives them away until what either has begun is
	// done.
	ManagedSettling = "settling"
)
