package reader

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"vswitch/frame"
)

// Hex reads a frame from hexadecimal digits, with or without spaces, colons and dashes
// between them, and as tcpdump -xx prints them.
func Hex(text string) ([]byte, error) {
	var digits strings.Builder
	for _, f := range strings.Fields(text) {
		if strings.HasPrefix(f, "0x") && strings.HasSuffix(f, ":") {
			continue // an offset of tcpdump's
		}
		f = strings.TrimPrefix(f, "0x")
		digits.WriteString(strings.NewReplacer(":", "", "-", "").Replace(f))
	}
	s := digits.String()
	if len(s) > 2*frame.MaxLen {
		return nil, fmt.Errorf("at most %d bytes are a frame", frame.MaxLen)
	}
	for i := range len(s) {
		if !strings.ContainsRune("0123456789abcdefABCDEF", rune(s[i])) {
			return nil, fmt.Errorf("%q is no hexadecimal digit", s[i:i+1])
		}
	}
	if len(s)%2 != 0 {
		return nil, fmt.Errorf("%d hexadecimal digits are half a byte too much, or too few", len(s))
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, errors.New("hexadecimal digits are wanted, from the destination address on")
	}
	return b, nil
}
