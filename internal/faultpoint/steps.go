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
	UnprepareDeleted  Step = "unprepare-deleted"
	UnprepareAnswer   Step = "unprepare-answer"
)

// The steps of a start, in their order.
const (
	StartStoreOpened Step = "start-store-opened"
	StartRecovered   Step = "start-recovered"
	StartDiscovered  Step = "start-discovered"
	StartServing     Step = "start-serving"
)

// The steps at which a file is half-way to where it belongs.
const (
	FileWritten    Step = "file-written"
	HoldingWritten Step = "holding-written"
	SpecWritten    Step = "spec-written"
)

// Steps returns all steps.
func Steps() []Step {
	return []Step{
		PrepareReceived, PrepareLocked, PreparePlanned, PrepareTaken, PrepareFamily, PrepareCDI, PrepareSaved, PrepareAnswer,
		UnprepareReceived, UnprepareLocked, UnprepareFamily, UnprepareFreed, UnprepareCDI, UnprepareDeleted, UnprepareAnswer,
		StartStoreOpened, StartRecovered, StartDiscovered, StartServing,
		FileWritten, HoldingWritten, SpecWritten,
	}
}
