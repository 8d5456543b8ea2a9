package explain

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// longestText is what the API takes as an event's message, in bytes.
const longestText = 1024

// longestExpression bounds what is repeated of a CEL expression, in runes.
const longestExpression = 60

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// list joins words as in "a, b and c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// brief is an expression on one line, cut off where it gets long.
func brief(expression string) string {
	line := []rune(strings.Join(strings.Fields(expression), " "))
	if len(line) > longestExpression {
		return string(line[:longestExpression-1]) + "…"
	}
	return string(line)
}

// shorten cuts a text to what the API takes.
func shorten(text string) string {
	if len(text) <= longestText {
		return text
	}
	const more = " …"
	end := longestText - len(more)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.TrimRight(text[:end], " ") + more
}

func nonEmpty(words []string) []string {
	var all []string
	for _, w := range words {
		if w != "" {
			all = append(all, w)
		}
	}
	return all
}
