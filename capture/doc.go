// Package capture writes captured frames to pcapng files: Writer makes the format,
// File keeps a rotating set of files going whatever the disk does. It captures
// nothing by itself and knows neither ports nor bridges; it is handed packets.
//
// Its one idea is that a capture never hurts what it watches, and never lies: what
// could not be written is counted, the count stands in the file (epb_dropcount)
// where the packets are missing, and every file on disk is readable at any moment
// because only whole blocks are written.
//
// The format is written here and not by gopacket/pcapgo, whose NgWriter (v1.1.19)
// writes no packet options: no direction, no comment, no drop count, which are
// half of what one wants to know of a frame in a switch. gopacket's NgReader is
// used in the tests, and so is tshark.
//
// # Format
//
// draft-ietf-opsawg-pcapng. All numbers are little-endian; every block is padded
// to 4 bytes and carries its length at both ends:
//
//	 0                4               8
//	┌────────────────┬───────────────┬──────────┬───────────────┐
//	│ block type     │ total length  │ body …   │ total length  │
//	└────────────────┴───────────────┴──────────┴───────────────┘
//
// A section is: SHB, then IDBs (an interface's before its first packet) and EPBs
// as they come, then an ISB for each interface.
package capture
