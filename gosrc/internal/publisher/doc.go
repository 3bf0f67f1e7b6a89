// Package publisher reads the sequences of a logical publisher, of version 10 and later, over an ordinary connection and with
// nothing installed there.
//
// A sequence that cannot be read has its [Problem]; the others of its batch are read. What fails as a whole is the
// connection.
package publisher
