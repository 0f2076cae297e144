package runtimes

import (
	"context"
	"fmt"
)

// suggest names what is called nearly like word, or nothing.
func (r *Runtimes) suggest(ctx context.Context, word string, kinds []kind) string {
	const far = 3 // slips
	best, distance := "", far
	for _, k := range kinds {
		for _, name := range k.near(ctx) {
			if n := slips(word, name, distance); n > 0 && n < distance && n < len(word) {
				best, distance = k.name+":"+name, n
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// slips counts the letters to insert, delete or replace to make b of a (Levenshtein), or
// returns most when that many are not enough.
func slips(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			n := min(row[j], row[j+1]) + 1
			if a[i] == b[j] {
				n = diagonal
			} else {
				n = min(n, diagonal+1)
			}
			diagonal, row[j+1] = row[j+1], n
		}
	}
	return min(row[len(b)], most)
}
