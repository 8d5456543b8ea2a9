package faultpoint

// Step is a place in the life of a claim or of the plugin.
type Step string

// The steps of a preparation, in their order.
const (
	PrepareReceived Step = "prepare-received"
	PrepareLocked   Step = "prepare-locked"
	PreparePlanned  Step = "prepare-planned"
	PrepareTaken    Step = "prepare-taken"
	PrepareFamily   Step = "prepare-family"
	PrepareCDI      Step = "prepare-cdi"
	PrepareSaved    Step = "prepare-saved"
	PrepareAnswer   Step = "prepare-answer"
)

// The steps of undoing one, in their order.
const (
	UnprepareReceived Step = "unprepare-received"
	UnprepareLocked   Step = "unprepare-locked"
	UnprepareFamily   Step = "unprepare-family"
	UnprepareFreed    Step = "unprepare-freed"
	UnprepareCDI      Step = "unprepare-cdi"
	UnprepareMetadata Step = "unprepare-metadata"
	UnprepareDeleted  Step = "unprepare-deleted"
	UnprepareAnswer   Step = "unprepare-answer"
)

// The steps of taking back what a failed preparation did, in their order.
const (
	UndoFamily   Step = "undo-family"
	UndoFreed    Step = "undo-freed"
	UndoDeleted  Step = "undo-deleted"
	UndoCDI      Step = "undo-cdi"
	UndoMetadata Step = "undo-metadata"
)

// The steps of a start, in their order.
const (
	StartStoreOpened Step = "start-store-opened"
	StartRecovered   Step = "start-recovered"
	StartDiscovered  Step = "start-discovered"
	StartServing     Step = "start-serving"
)

// The steps of mending what does not agree, at a start or later.
const (
	MendSetAside Step = "mend-set-aside"
	MendHolding  Step = "mend-holding"
	MendSpec     Step = "mend-spec"
	MendMetadata Step = "mend-metadata"
	MendPods     Step = "mend-pods"
	// MendHoldingPods comes before MendPods.
	MendHoldingPods Step = "mend-holding-pods"
)

// The steps at which a file is half-way to where it belongs.
const (
	SpareTaken      Step = "spare-taken"
	FileWritten     Step = "file-written"
	HoldingWritten  Step = "holding-written"
	HoldingLinked   Step = "holding-linked"
	UpdateWritten   Step = "update-written"
	AsideMade       Step = "aside-made"
	SpecWritten     Step = "spec-written"
	MetadataWritten Step = "metadata-written"
)

// Steps returns all steps.
func Steps() []Step {
	return []Step{
		PrepareReceived, PrepareLocked, PreparePlanned, PrepareTaken, PrepareFamily, PrepareCDI, PrepareSaved, PrepareAnswer,
		UnprepareReceived, UnprepareLocked, UnprepareFamily, UnprepareFreed, UnprepareCDI, UnprepareMetadata, UnprepareDeleted, UnprepareAnswer,
		UndoFamily, UndoFreed, UndoDeleted, UndoCDI, UndoMetadata,
		StartStoreOpened, StartRecovered, StartDiscovered, StartServing,
		MendSetAside, MendHolding, MendSpec, MendMetadata, MendPods, MendHoldingPods,
		SpareTaken, FileWritten, HoldingWritten, HoldingLinked, UpdateWritten, AsideMade, SpecWritten, MetadataWritten,
	}
}
