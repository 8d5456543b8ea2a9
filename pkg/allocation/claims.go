package allocation

import (
	"sync"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
)

// claims are all claims of the cluster as they are known: from a watch, or from
// our own writes before the watch tells of them. It is safe for concurrent use;
// what it returns is shared and never changed.
type claims struct {
	mu      sync.RWMutex
	byName  map[types.NamespacedName]*resourceapi.ResourceClaim
	byGang  map[types.NamespacedName]map[types.NamespacedName]bool
	byOwner map[types.UID]map[types.NamespacedName]bool
	byPool  map[string]map[types.NamespacedName]bool
}

func newClaims() *claims {
	return &claims{
		byName:  map[types.NamespacedName]*resourceapi.ResourceClaim{},
		byGang:  map[types.NamespacedName]map[types.NamespacedName]bool{},
		byOwner: map[types.UID]map[types.NamespacedName]bool{},
		byPool:  map[string]map[types.NamespacedName]bool{},
	}
}

func keyOf(claim *resourceapi.ResourceClaim) types.NamespacedName {
	return types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name}
}

// gangOf returns the gang that the claim is a member of; the name is empty if it
// is of none.
func gangOf(claim *resourceapi.ResourceClaim) types.NamespacedName {
	return types.NamespacedName{Namespace: claim.Namespace, Name: claim.Labels[v1alpha1.LabelGang]}
}

// ours tells whether this controller allocates the claim. Mixed is the request
// because of which nobody does. Managed classes of another driver's controller
// are none of ours.
func (c *Controller) ours(claim *resourceapi.ResourceClaim) (ours bool, mixed string) {
	ours, mixed = c.Fleet.IsOurs(claim)
	if !ours && mixed == "" {
		return false, ""
	}
	view := c.Fleet.View()
	for _, asked := range classes.Of(&claim.Spec) {
		class, err := view.Get(asked.Class)
		if err != nil {
			continue // not there, so not managed
		}
		if read := c.classes.Read(class); read.Managed && read.Ours {
			return ours, mixed
		}
	}
	return false, ""
}

func (s *claims) get(key types.NamespacedName) *resourceapi.ResourceClaim {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byName[key]
}

// set takes in a claim and returns what was known of it. It returns false, and
// keeps what it has, if that is as new already.
func (s *claims) set(claim *resourceapi.ResourceClaim) (*resourceapi.ResourceClaim, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.byName[keyOf(claim)]
	if before != nil && before.UID == claim.UID {
		if order, err := resourceversion.CompareResourceVersion(claim.ResourceVersion, before.ResourceVersion); err == nil && order <= 0 {
			return before, false
		}
	}
	if before != nil {
		s.index(before, unset)
	}
	s.byName[keyOf(claim)] = claim
	s.index(claim, set)
	return before, true
}

// drop forgets a claim that is gone, and returns what was known of it.
func (s *claims) drop(key types.NamespacedName, uid types.UID) *resourceapi.ResourceClaim {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.byName[key]
	if before == nil || before.UID != uid {
		return nil
	}
	s.index(before, unset)
	delete(s.byName, key)
	return before
}

func (s *claims) index(claim *resourceapi.ResourceClaim, change func(map[types.NamespacedName]bool, types.NamespacedName) map[types.NamespacedName]bool) {
	key := keyOf(claim)
	if gang := gangOf(claim); gang.Name != "" {
		put(s.byGang, gang, change(s.byGang[gang], key))
	}
	if owner := metav1.GetControllerOf(claim); owner != nil {
		put(s.byOwner, owner.UID, change(s.byOwner[owner.UID], key))
	}
	if claim.Status.Allocation == nil {
		return
	}
	for _, result := range claim.Status.Allocation.Devices.Results {
		put(s.byPool, result.Pool, change(s.byPool[result.Pool], key))
	}
}

func put[K comparable](index map[K]map[types.NamespacedName]bool, key K, members map[types.NamespacedName]bool) {
	if index[key] = members; len(members) == 0 {
		delete(index, key)
	}
}

func set(members map[types.NamespacedName]bool, key types.NamespacedName) map[types.NamespacedName]bool {
	if members == nil {
		members = map[types.NamespacedName]bool{}
	}
	members[key] = true
	return members
}

func unset(members map[types.NamespacedName]bool, key types.NamespacedName) map[types.NamespacedName]bool {
	delete(members, key)
	return members
}

// all returns every claim.
func (s *claims) all() []*resourceapi.ResourceClaim {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*resourceapi.ResourceClaim, 0, len(s.byName))
	for _, claim := range s.byName {
		all = append(all, claim)
	}
	return all
}

// ofGang returns the members of a gang.
func (s *claims) ofGang(gang types.NamespacedName) []*resourceapi.ResourceClaim {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.named(s.byGang[gang])
}

// ofOwner returns the claims made for a pod.
func (s *claims) ofOwner(pod types.UID) []*resourceapi.ResourceClaim {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.named(s.byOwner[pod])
}

// ofPool returns the claims that have devices of a pool.
func (s *claims) ofPool(pool string) []*resourceapi.ResourceClaim {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.named(s.byPool[pool])
}

func (s *claims) named(keys map[types.NamespacedName]bool) []*resourceapi.ResourceClaim {
	all := make([]*resourceapi.ResourceClaim, 0, len(keys))
	for key := range keys {
		all = append(all, s.byName[key])
	}
	return all
}
