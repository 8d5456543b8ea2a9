package nodelabels

import (
	"regexp"
	"strings"
)

// Mixed is the model of a node whose GPUs have several.
const Mixed = "mixed"

// maxValue is the length of a label's value.
const maxValue = 63

// Model returns what people call a GPU: "h200" for "NVIDIA H200", "h100" for
// "NVIDIA H100 80GB HBM3". Of a product without such a word it is the whole
// name, in letters that a label may have. It is empty if nothing is left.
func Model(product string) string {
	word := regexp.MustCompile(`^[A-Z]{1,3}[0-9]{1,4}[A-Z]{0,2}$`)
	for _, part := range strings.FieldsFunc(product, func(r rune) bool { return r == ' ' || r == '-' }) {
		if word.MatchString(part) {
			return strings.ToLower(part)
		}
	}
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(product), "-")
	name = strings.TrimPrefix(strings.Trim(name, "-"), "nvidia-")
	return strings.Trim(name[:min(len(name), maxValue)], "-")
}

// modelOf returns the model of all GPUs of a node.
func modelOf(products []string) string {
	var model string
	for i, product := range products {
		switch m := Model(product); {
		case i == 0:
			model = m
		case m != model:
			return Mixed
		}
	}
	return model
}
