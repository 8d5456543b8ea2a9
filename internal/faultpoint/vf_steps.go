package faultpoint

// The steps of preparing a VF, in their order.
const (
	VFJournalHalfWritten Step = "vf-journal-half-written"
	VFJournalRebuilt     Step = "vf-journal-rebuilt"
	VFJournalWritten     Step = "vf-journal-written"
	VFSettingsApplied    Step = "vf-settings-applied"
	VFInterfaceSet       Step = "vf-interface-set"
	VFDriverBound        Step = "vf-driver-bound"
)

// The steps of joining a VF to a network namespace, in their order.
const (
	VFPlaceWritten Step = "vf-place-written"
	VFNetworkAdded Step = "vf-network-added"
	VFNamedApart   Step = "vf-named-apart"
	VFMoved        Step = "vf-moved"
	VFNamed        Step = "vf-named"
	VFIPAMAdded    Step = "vf-ipam-added"
	VFAddressed    Step = "vf-addressed"
	VFRouted       Step = "vf-routed"
	VFRDMAMoved    Step = "vf-rdma-moved"
	VFPlaceDone    Step = "vf-place-done"
)

// The steps of taking a VF out of a network namespace, in their order.
const (
	VFPlaceLeft      Step = "vf-place-left"
	VFNetworkDeleted Step = "vf-network-deleted"
	VFRDMATakenBack  Step = "vf-rdma-taken-back"
	VFNamedApartBack Step = "vf-named-apart-back"
	VFTakenBack      Step = "vf-taken-back"
	VFNamedBack      Step = "vf-named-back"
	VFPlaceCleared   Step = "vf-place-cleared"
)

// The steps of releasing a VF, in their order.
const (
	VFDriverRestored   Step = "vf-driver-restored"
	VFSettingsRestored Step = "vf-settings-restored"
	VFInterfaceReset   Step = "vf-interface-reset"
	VFJournalDeleted   Step = "vf-journal-deleted"
)

// VFSteps returns all steps of VFs.
func VFSteps() []Step {
	return []Step{
		VFJournalHalfWritten, VFJournalRebuilt, VFJournalWritten, VFSettingsApplied, VFInterfaceSet, VFDriverBound,
		VFPlaceWritten, VFNetworkAdded, VFNamedApart, VFMoved, VFNamed, VFIPAMAdded, VFAddressed, VFRouted, VFRDMAMoved, VFPlaceDone,
		VFPlaceLeft, VFNetworkDeleted, VFRDMATakenBack, VFNamedApartBack, VFTakenBack, VFNamedBack, VFPlaceCleared,
		VFDriverRestored, VFSettingsRestored, VFInterfaceReset, VFJournalDeleted,
	}
}
