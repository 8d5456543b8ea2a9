package allocation

// Reason is that of an event, on a claim where nothing else is said.
type Reason string

// The reasons of events. What they mean to users is in docs/managed-classes.md.
const (
	// ReasonAllocated: the claim has its devices, and why these.
	ReasonAllocated Reason = "Allocated"
	// ReasonCannotAllocate: the claim can never be allocated as it is.
	ReasonCannotAllocate Reason = "CannotAllocate"
	// ReasonWriteRefused: the API server does not let us allocate the claim.
	ReasonWriteRefused Reason = "WriteRefused"
	// ReasonMixedClasses: some requests are of managed classes and some are not.
	ReasonMixedClasses Reason = "MixedClasses"
	// ReasonFreedUnused: no pod came for the claim.
	ReasonFreedUnused Reason = "FreedUnused"
	// ReasonFreed: the claim is allocated anew, elsewhere.
	ReasonFreed Reason = "Freed"
	// ReasonDeallocatedByScheduler: kube-scheduler took the devices back.
	ReasonDeallocatedByScheduler Reason = "DeallocatedByScheduler"
	// ReasonDoubleAllocation: another claim has one of the devices.
	ReasonDoubleAllocation Reason = "DoubleAllocation"
	// ReasonInvalidLabel: a label of the claim cannot be understood.
	ReasonInvalidLabel Reason = "InvalidLabel"
	// ReasonGangTimedOut: not all members of the gang could be allocated in time.
	ReasonGangTimedOut Reason = "GangTimedOut"
	// ReasonGangUndone: the gang could not be completed; all members wait again.
	ReasonGangUndone Reason = "GangUndone"
	// ReasonPlanUnreadable is on the ConfigMap of a gang's plan.
	ReasonPlanUnreadable Reason = "PlanUnreadable"
)
