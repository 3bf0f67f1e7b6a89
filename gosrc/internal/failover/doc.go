// Package failover answers whether a standby may be promoted now: it turns what is known of the standby, of the primary and
// of the copies into rows, one for each thing that must hold ([Check]). It looks at nothing itself.
//
// A row is false where a promotion at this moment would cost something, and unknown where the primary would have to be
// asked and is not there: then what the last pass saw decides. What is merely worth knowing is a true row with a hint.
package failover
