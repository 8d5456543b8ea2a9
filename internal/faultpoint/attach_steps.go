package faultpoint

// The steps of joining a claim's devices to a sandbox, in their order.
const (
	AttachReceived Step = "attach-received"
	AttachLocked   Step = "attach-locked"
	AttachFamily   Step = "attach-family"
	AttachSaved    Step = "attach-saved"
	AttachAnswer   Step = "attach-answer"
	// AttachUndone comes after each device that a failed attachment has taken
	// out of the sandbox again.
	AttachUndone Step = "attach-undone"
)

// AttachSteps returns all steps of joining devices to sandboxes.
func AttachSteps() []Step {
	return []Step{AttachReceived, AttachLocked, AttachFamily, AttachSaved, AttachAnswer, AttachUndone}
}
