package explain

import "container/heap"

// queue has the claims in the order in which they are due.
type queue struct{ heap byDue }

func (q *queue) add(w *waiting)    { heap.Push(&q.heap, w) }
func (q *queue) fix(w *waiting)    { heap.Fix(&q.heap, w.place) }
func (q *queue) remove(w *waiting) { heap.Remove(&q.heap, w.place) }

// first returns the claim that is due first, or nil.
func (q *queue) first() *waiting {
	if len(q.heap) == 0 {
		return nil
	}
	return q.heap[0]
}

// byDue implements [heap.Interface].
type byDue []*waiting

// Len is the number of claims.
func (h byDue) Len() int { return len(h) }

// Less tells which claim is due earlier.
func (h byDue) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

// Swap exchanges two claims.
func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push adds a claim, which is a *waiting, at the end.
func (h *byDue) Push(x any) {
	if w, ok := x.(*waiting); ok {
		w.place = len(*h)
		*h = append(*h, w)
	}
}

// Pop removes the last claim.
func (h *byDue) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}
