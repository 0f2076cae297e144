// Package bfd tells whether the other end of a tunnel can be reached:
// Bidirectional Forwarding Detection, RFC 5880, between two hosts a single hop
// apart, RFC 5881, in the frames and with the habits of Open vSwitch's lib/bfd.c,
// so that either end may be Open vSwitch.
//
// It opens no socket and knows nothing of tunnels: a Session is given the control
// packets that came in and hands out those to be sent; Encapsulate and Decapsulate
// put them into Ethernet frames and take them out. It speaks asynchronous mode
// only: no authentication, no echo, and it never asks for demand mode.
//
// # The idea
//
// Each end says what it hears, several times a second, and believes a path only
// while the other end says that it hears too:
//
//	             +--+
//	             |  | UP, ADMIN DOWN, TIMER
//	             |  V
//	     DOWN  +------+  INIT
//	+----------|      |----------+
//	|          | DOWN |          |
//	|  +------>|      |<------+  |
//	|  |       +------+       |  |
//	|  | ADMIN DOWN,          |  | ADMIN DOWN, DOWN,
//	|  | TIMER                |  | TIMER
//	V  |                      |  V
//	+------+                +------+
//	|      |  INIT, UP      |      |
//	| INIT |--------------->|  UP  |
//	|      |                |      |
//	+------+                +------+
//
// (RFC 5880 section 6.2; at the arrows: the state that the other end's packet
// told, or that its packets stayed away.) So a cut in one direction is noticed by
// both ends.
//
// A change is told at once and not when the next packet is due, as section 6.8.7
// allows: two ends that hear each other are up after two round trips, and an end
// that was restarted takes its place without waiting for a timeout. Such packets
// have a budget (see answerBurst), so two ends that drive each other in circles
// cannot make a storm of it.
//
// # Timers
//
// A session that is not up sends every second; one that is up, as often as it
// wants and the other end can take: max(our MinTx, the other's required minimum).
// Each interval is shortened at random by up to a quarter, so that sessions do not
// march in step. The other end counts as gone when nothing came for its multiplier
// times max(our MinRx, the other's desired minimum).
//
// # Thread-safety
//
// All methods of Session may be called at any time from any goroutine. A session
// is one lock, one timer, and no goroutine of its own: the timer's goroutine, or
// one started for the purpose, calls Config.Send and Config.Notify, without the
// lock. So Receive neither waits for them nor runs them, and may be called by who
// must not be held up.
package bfd
