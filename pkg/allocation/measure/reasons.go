package measure

// Reason is why something about an allocation went wrong: a value of the label
// "reason" of dra_allocation_errors_total. There are only those below.
type Reason string

const (
	// ReasonDeallocatedByScheduler: kube-scheduler took back an allocation of
	// ours, because the claim's pod did not fit on the node.
	ReasonDeallocatedByScheduler Reason = "DeallocatedByScheduler"
	// ReasonConflict: somebody changed the claim while we allocated it; it is
	// read and planned again.
	ReasonConflict Reason = "Conflict"
	// ReasonThrottled: the API server asked us to come back later.
	ReasonThrottled Reason = "Throttled"
	// ReasonForbidden: we lack a permission, or an admission rule refused us.
	ReasonForbidden Reason = "Forbidden"
	// ReasonWriteFailed: any other answer to our write of an allocation.
	ReasonWriteFailed Reason = "WriteFailed"
	// ReasonInvalidClaim: the claim can never be allocated as it is, such as for
	// a class that is not there, or a selector that fails.
	ReasonInvalidClaim Reason = "InvalidClaim"
	// ReasonMixedClasses: some requests are of managed classes and some are not.
	ReasonMixedClasses Reason = "MixedClasses"
	// ReasonPlanTimeout: the search for devices took too long.
	ReasonPlanTimeout Reason = "PlanTimeout"
	// ReasonGangTimedOut: not all members of a gang could be allocated in time.
	ReasonGangTimedOut Reason = "GangTimedOut"
	// ReasonGangUndone: a gang's plan was begun and had to be taken back.
	ReasonGangUndone Reason = "GangUndone"
	// ReasonFreedUnused: devices were freed because no pod came for them.
	ReasonFreedUnused Reason = "FreedUnused"
	// ReasonDoubleAllocation: a claim was found to have what another one has.
	ReasonDoubleAllocation Reason = "DoubleAllocation"
	// ReasonOther: everything else; the log has it.
	ReasonOther Reason = "Other"
)

// Reasons returns all of them.
func Reasons() []Reason {
	return []Reason{
		ReasonDeallocatedByScheduler, ReasonConflict, ReasonThrottled, ReasonForbidden, ReasonWriteFailed,
		ReasonInvalidClaim, ReasonMixedClasses, ReasonPlanTimeout, ReasonGangTimedOut, ReasonGangUndone,
		ReasonFreedUnused, ReasonDoubleAllocation, ReasonOther,
	}
}
