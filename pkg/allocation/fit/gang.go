package fit

import (
	"context"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

func (p *Planner) gang(ctx context.Context, view *fleet.View, ask Ask) ([]Choice, error) {
	return p.together(ctx, view, ask)
}
