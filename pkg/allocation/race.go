package allocation

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/claimwrite"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

var (
	// errOutdated tells that what was chosen is no longer to be had.
	errOutdated = errors.New("the choice is out of date")
	// errBusy tells that another one is at a claim that is needed.
	errBusy = errors.New("one of the claims is being changed")
)

// isRace tells whether an error only says that others were faster: they have
// changed the claim, taken the device, or are at it. That is a part of normal
// life, and nobody needs to look at it.
func isRace(err error) bool {
	switch {
	case errors.Is(err, claimwrite.ErrUnknown):
		return false
	case errors.Is(err, errOutdated), errors.Is(err, errBusy), errors.Is(err, errInFlight), errors.Is(err, fleet.ErrTaken), apierrors.IsConflict(err):
		return true
	}
	return claimIsGone(err)
}

// claimIsGone tells it from a namespace that is not there, which is an error.
func claimIsGone(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == "resourceclaims"
}
