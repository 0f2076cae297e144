// Package fdb is a bridge's forwarding database: which port a MAC address of a
// VLAN was last seen on. Many workers look up and learn at once, a frame at a
// time, and neither waits for the other.
//
// It is not a multicast database, knows nothing of frames or of what a port is
// beyond a small number, starts no goroutine and never reads a clock: the
// caller says what second it is, and calls Sweep.
//
// # The idea
//
// The table is an array of buckets, each one cache line: three slots of a key
// word and a value word, a count of the slots ever given to a new key, and a
// count of the keys that wanted this bucket but had to go past it.
//
//	 0        8        16                        40                        64
//	+--------+--------+--------+--------+--------+--------+--------+--------+
//	| claims |  past  | key 0  | key 1  | key 2  | value0 | value1 | value2 |
//	+--------+--------+--------+--------+--------+--------+--------+--------+
//
//	key    1 | 000 | VLAN (12) | MAC (48)          0: the slot is free
//	value  last seen, seconds (32) | flags (8) | port (24)
//
// A key lives in the first bucket, from the one its hash names onwards, that
// had a free slot; it does not move while it lives. A search ends where past is
// zero. So there are no tombstones, a removal leaves nothing behind to clean,
// and a table that is flooded for a year is as quick as a new one. The hash is
// seeded at random per table, so nobody outside can choose MACs that collide.
//
// The array starts small and grows by 1.4 when three slots in four are used:
// 28 to 40 bytes a MAC. The bucket's number is the hash scaled to the array's
// length, so old and new array have the same order, and growing is one pass
// through both, front to back. It is done by the Learn that found no room, and
// others that learn something new wait for it: some 60 ms for the last of the
// growths to a million entries, well under a millisecond up to 8192. Lookup
// never waits.
//
// A full table takes the place of an entry of the port that holds most, as Open
// vSwitch does (lib/mac-learning.h), so that a flood of addresses drives out
// itself and not its neighbours. Of that port's entries the oldest of a sample
// goes; the sample is taken where a clock hand stands, and what one eviction
// may look at is bounded (see victimLocked).
//
// # Flapping
//
// Where a network has a loop, two ports of a bridge cabled together or two
// meshes patched into one, a broadcast comes back by the loop's ports, again and
// again, and each time the MAC of its sender moves to the port it came by. So a
// MAC that moves more than FlapLimit times within one second of the caller's
// clock flaps, and is held: its entry goes back to its home, the port where it
// was before the first move, and for FlapHold seconds Learn of it from another
// port says Held and changes nothing. The caller drops that frame, and with it
// what goes round in the loop. Then the MAC may move again, and is held again
// if the loop is still there.
//
// The oldest port wins because it is the station's own: a frame goes around the
// loop only after the station sent it, so the moves begin at the station's port
// and go to the loop's. Held at one of the loop's ports the station would be cut
// off, and the loop would live on the other way round. For the same reason the
// row of moves that leads home may be longer than a second: it ends where a MAC
// has not moved in a second nor in the one before. Else a slow loop, through
// tunnels, whose moves began just before the clock ticked, would have one of its
// own ports for home. And a port that is flushed or dropped is nobody's home.
//
// A hold lies in the entry itself: a flag, and the second when it ends in place
// of that when it was last seen. So it needs no list that could overflow, the
// test costs the way of a known MAC nothing, a held entry does not age, and it
// is over without anybody ending it. What ends it before: everything that takes
// the entry out of the table or makes it static, and SetLimits without a
// FlapLimit. The MACs whose moves are counted are 8192 at most; those that are
// held are not counted, so in a larger storm others take their places.
//
// # Thread-safety
//
// All methods of FDB may be called at any time from any goroutine. Lookup, and
// Learn of what is known already, take no lock. Everything that changes which
// keys are in the table, or on which port, holds FDB.mu. Sweep and the flushes
// search without it, and take it only for a bucket that holds what they want.
//
// Operations of sync/atomic are sequentially consistent (The Go Memory Model),
// so the order of the program is the order that every thread sees:
//
//   - A slot is given to a key in the order: claims+1, value, key. It is taken
//     back by setting key to zero. Moves, refreshes and changes between static
//     and learned write the one value word.
//   - A reader reads claims, then key, then value, then claims again, and
//     starts anew with the bucket if claims has changed. Had the value been
//     written for another key, then either before the key it found was stored
//     (impossible: that key's own value was stored in between), or after that
//     key was removed, and then claims was raised after the reader saw the key
//     and before it saw the value. So an answer is always a port that the very
//     MAC had during the call. claims has 64 bits and does not wrap. A reader
//     never waits for a stalled writer: it starts anew only if one went ahead.
//   - past is raised along the way before a key is stored, and lowered after it
//     was removed, so a search never misses a key that was there throughout.
//   - A refresh of last seen is a compare-and-swap on the value word. If the
//     slot was given away meanwhile it fails, or finds the same port, flags and
//     time, and then does no more than refresh an entry of the same port.
//     Sweep, and growing, first set a flag in the value, which makes a refresh
//     fail and go by way of the lock: no entry is aged that was just refreshed.
//   - A grown array is published through one pointer. A reader of the old one
//     sees the table as it was when its call began.
package fdb
