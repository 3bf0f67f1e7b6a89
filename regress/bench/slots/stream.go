package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/replsync/replsync/regress/bench/harness"
	"github.com/replsync/replsync/regress/cluster"
)

// A stream is the receiving end of replication, physical or logical, which keeps nothing of what it gets.
type stream struct{ conn *pgconn.PgConn }

// openStream starts replication with a command.
func openStream(b *harness.B, s *cluster.Server, command string) *stream {
	conn := replication(b, s)
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	if err := conn.Frontend().Flush(); err != nil {
		b.Fatalf("%s: %v", command, err)
	}
	for {
		msg, err := conn.ReceiveMessage(context.Background())
		if e, ok := msg.(*pgproto3.ErrorResponse); ok {
			err = pgconn.ErrorResponseToPgError(e)
		}
		if err != nil {
			b.Fatalf("%s: %v", command, err)
		}
		if _, ok := msg.(*pgproto3.CopyBothResponse); ok {
			return &stream{conn}
		}
	}
}

// A message is what a walsender sends: data with the position it begins at, or a keepalive with the position that the
// walsender has come to.
type message struct {
	data     []byte // nil in a keepalive
	position cluster.LSN
	reply    bool // it asks for a status
}

// receive returns the next message, nil if there is none before ctx is done.
func (s *stream) receive(ctx context.Context) (*message, error) {
	for {
		msg, err := s.conn.ReceiveMessage(ctx)
		if err != nil {
			if pgconn.Timeout(err) {
				return nil, nil
			}
			return nil, err
		}
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyDone:
			return nil, fmt.Errorf("the server has ended the stream")
		case *pgproto3.CopyData:
			switch {
			case len(msg.Data) > 25 && msg.Data[0] == 'w':
				return &message{data: msg.Data[25:], position: cluster.LSN(binary.BigEndian.Uint64(msg.Data[1:]))}, nil
			case len(msg.Data) >= 18 && msg.Data[0] == 'k':
				return &message{position: cluster.LSN(binary.BigEndian.Uint64(msg.Data[1:])), reply: msg.Data[17] == 1}, nil
			}
		}
	}
}

// confirm sends a status: everything up to the position is on disk and applied.
func (s *stream) confirm(position cluster.LSN) error {
	data := []byte{'r'}
	for range 3 {
		data = binary.BigEndian.AppendUint64(data, uint64(position))
	}
	data = binary.BigEndian.AppendUint64(data, uint64(time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds()))
	s.conn.Frontend().Send(&pgproto3.CopyData{Data: append(data, 0)})
	return s.conn.Frontend().Flush()
}
