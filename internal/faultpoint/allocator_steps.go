package faultpoint

// The steps of writing down who gives the node's devices to claims.
const (
	AllocatorsHalfWritten Step = "allocators-half-written"
	AllocatorsWritten     Step = "allocators-written"
	AllocatorsSetAside    Step = "allocators-set-aside"
)

// AllocatorSteps returns all steps of writing that down.
func AllocatorSteps() []Step {
	return []Step{AllocatorsHalfWritten, AllocatorsWritten, AllocatorsSetAside}
}
