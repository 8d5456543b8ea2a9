package registrytrust

import (
	"errors"
	"fmt"
)

// Reason names a kind of problem, in metrics and events.
type Reason string

// What can be wrong with what was configured.
const (
	ReasonConfigInvalid  Reason = "ConfigInvalid"
	ReasonCAMissing      Reason = "CAMissing"
	ReasonCAInvalid      Reason = "CAInvalid"
	ReasonCAIsPrivateKey Reason = "CAIsPrivateKey"
	ReasonCAIsNoCA       Reason = "CAIsNoCA"
	ReasonCAExpired      Reason = "CAExpired"
)

// What can be wrong with the node.
const (
	ReasonForeignFiles        Reason = "ForeignFiles"
	ReasonWriteFailed         Reason = "WriteFailed"
	ReasonConfigPathUnset     Reason = "ConfigPathUnset"
	ReasonConfigPathElsewhere Reason = "ConfigPathElsewhere"
	ReasonConfigPathList      Reason = "ConfigPathList"
)

// What can be wrong with the registry, as this node sees it.
const (
	ReasonUnreachable        Reason = "Unreachable"
	ReasonNoTLS              Reason = "NoTLS"
	ReasonUnknownAuthority   Reason = "UnknownAuthority"
	ReasonWrongName          Reason = "WrongName"
	ReasonCertificateExpired Reason = "CertificateExpired"
	ReasonHandshakeFailed    Reason = "HandshakeFailed"
)

// Problem is what an admin has to know of a registry or of a node: what is
// wrong, and what to do about it.
type Problem struct { //nolint:errname // it is reported, too, where nothing failed
	Reason  Reason
	Message string
}

// Error implements error.
func (p *Problem) Error() string { return p.Message }

func problemf(reason Reason, format string, args ...any) *Problem {
	return &Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// asProblem returns the problem that err is, or one of the given reason.
func asProblem(err error, otherwise Reason) *Problem {
	if p := new(Problem); errors.As(err, &p) {
		return p
	}
	return problemf(otherwise, "%v", err)
}
