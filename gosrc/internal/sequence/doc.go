// Package sequence decides about single sequences: which of two positions is ahead, where one should stand here, and in what
// two definitions differ. It does no I/O.
//
// A position is ahead of another in the direction of the increment. A sequence that cycles has no such order: it is at the
// publisher's position or it is not, and a margin would say nothing about it.
package sequence
