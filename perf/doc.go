// Package perf measures this switch and its peers on the same machine in the same
// run: what is measured (scenarios), in which order (the runner), and how it is
// told (tables, JSON, a Markdown page, a chart, targets). Sending and counting
// frames is perf/loadgen's, standing a switch up is perf/subject's. It is not for
// benchmarks of single functions: those are beside the code.
//
// Its one idea: only ratios within a run count. A machine is fast in one minute
// and slow in the next, so subjects are measured in turn, round after round, each
// round beginning with another one; what is told is a median with the lowest and
// the highest, and a ratio of medians:
//
//	for each topology              one host, two containers; two hosts, VXLAN; …
//	    for each round             1 … 7
//	        for each subject       A B C, then B C A, then C A B, …
//	            stand it up, warm it up
//	            for each scenario of that topology
//	                measure it     values, and CPU time around them
//	            take it away
//
// Two subjects never stand at once. A subject that cannot do a scenario is told
// with its reason, one that failed with its error, and neither as a zero.
//
// # Words
//
// A subject is a switch with its configuration. A scenario is something measured
// on a topology, in one or more metrics; a sample is one round's values of one
// subject in one scenario. Frame lengths in names are with the frame check
// sequence, as RFC 2544 has them: 64, 512, 1518.
package perf
