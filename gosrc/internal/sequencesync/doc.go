// Package sequencesync keeps the sequences of the subscriptions of one database at their publishers' positions.
//
// A cycle over a subscription reads where the publisher stands, and after that its sequences, in portions: while one is
// set here, the next is read there. What is found of each sequence is compared with what was recorded of it before, so that
// a cycle in which nothing moves writes nothing. Requests of SQL functions are served between two portions.
package sequencesync
