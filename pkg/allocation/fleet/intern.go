package fleet

import (
	"encoding/binary"
)

// shapes keeps one of each shape and part, for as long as a pool uses it.
type shapes struct {
	parts map[[32]byte]*part
	byKey map[string]*Shape
	next  uint64
}

// keep returns the part that is like this one.
func (s *shapes) keep(p *part) *part {
	if known := s.parts[p.key]; known != nil {
		p = known
	} else {
		s.next++
		p.id = s.next
		s.parts[p.key] = p
	}
	p.refs++
	return p
}

func (s *shapes) dropPart(p *part) {
	if p.refs--; p.refs == 0 {
		delete(s.parts, p.key)
	}
}

// of returns the shape of a pool of these slices.
func (s *shapes) of(slices []*slice) (*Shape, error) {
	var key []byte
	var parts []*part
	for _, slice := range slices {
		key = binary.AppendUvarint(key, slice.part.id)
		parts = append(parts, slice.part)
	}
	shape := s.byKey[string(key)]
	if shape == nil {
		var err error
		if shape, err = newShape(parts); err != nil {
			return nil, err
		}
		s.next++
		shape.id, shape.key = s.next, string(key)
		s.byKey[shape.key] = shape
	}
	shape.refs++
	return shape, nil
}

func (s *shapes) drop(shape *Shape) {
	if shape.refs--; shape.refs == 0 {
		delete(s.byKey, shape.key)
	}
}
