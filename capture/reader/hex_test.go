package reader

import (
	"net"
	"strings"
	"testing"
)

func TestHex(t *testing.T) {
	for text, want := range map[string]string{
		"0102 03:04-05 0x06":                "010203040506",
		"0x0000:  0102 0304\n0x0010:  0506": "010203040506",
		"0":                                 "half a byte",
		"0g":                                `"g" is no hexadecimal digit`,
		"":                                  "hexadecimal digits are wanted",
		strings.Repeat("00", 65554):         "at most 65553 bytes",
	} {
		b, err := Hex(text)
		if got := net.HardwareAddr(b).String(); err == nil && strings.ReplaceAll(got, ":", "") != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %s, %v, want %s", text, got, err, want)
		}
	}
}
