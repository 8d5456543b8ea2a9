package fleet

import (
	"iter"
	"math/bits"
	"slices"
)

// Set is a set of devices of one pool, by their place in [Shape.Devices]. The
// nil Set is empty. Sets that a [View] returns must not be changed.
type Set []uint64

const wordSize = 64

// MakeSet returns an empty set for n devices.
func MakeSet(n int) Set { return make(Set, (n+wordSize-1)/wordSize) }

// Has tells whether the device is in the set.
func (s Set) Has(device int) bool {
	word := device / wordSize
	return word < len(s) && s[word]&(1<<(device%wordSize)) != 0
}

// Add puts a device in. It must be one of those for which the set was made.
func (s Set) Add(device int) { s[device/wordSize] |= 1 << (device % wordSize) }

// Remove takes a device out. It must be one of those for which the set was made.
func (s Set) Remove(device int) { s[device/wordSize] &^= 1 << (device % wordSize) }

// Len is the number of devices in the set.
func (s Set) Len() int {
	n := 0
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// Shared is the number of devices that both sets have.
func (s Set) Shared(other Set) int {
	n := 0
	for i := range min(len(s), len(other)) {
		n += bits.OnesCount64(s[i] & other[i])
	}
	return n
}

// And returns a new set of what both have.
func (s Set) And(other Set) Set {
	all := make(Set, len(s))
	for i := range min(len(s), len(other)) {
		all[i] = s[i] & other[i]
	}
	return all
}

// Without returns a new set of what the other has not.
func (s Set) Without(other Set) Set {
	all := slices.Clone(s)
	for i := range min(len(s), len(other)) {
		all[i] &^= other[i]
	}
	return all
}

// Union adds all that the other has. The other must not be made for more
// devices.
func (s Set) Union(other Set) {
	for i := range other {
		s[i] |= other[i]
	}
}

// All goes through the devices in ascending order.
func (s Set) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, word := range s {
			for ; word != 0; word &= word - 1 {
				if !yield(i*wordSize + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}
