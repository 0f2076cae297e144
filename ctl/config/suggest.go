package config

import (
	"fmt"
	"unicode/utf8"
)

// didYouMean is `; did you mean "tag"?`, or nothing when no candidate is near.
// Of equally near candidates the first is named.
func didYouMean(word string, candidates []string) string {
	const far = 3
	best, distance := "", far
	if utf8.RuneCountInString(word) > 64 {
		return ""
	}
	for _, c := range candidates {
		n := editDistance(word, c)
		// A word that shares no letter with the candidate is no misspelling of it.
		if n < distance && n < len(word) && n < len(c) {
			best, distance = c, n
		}
	}
	if best == "" || best == word {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b (Damerau-Levenshtein, no substring edited twice).
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, above, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(y)]
}
