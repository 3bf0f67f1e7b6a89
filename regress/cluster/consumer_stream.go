package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// startReplication sends START_REPLICATION and waits for the answer.
func (c *Consumer) startReplication(ctx context.Context, conn *pgconn.PgConn) error {
	options := slices.Clone(c.config.Options)
	switch c.config.Plugin {
	case "pgoutput":
		version := "1"
		if c.config.Streaming {
			version = "2"
			options = append(options, `"streaming" 'on'`)
		}
		if c.config.TwoPhase {
			version = "3"
			options = append(options, `"two_phase" 'on'`)
		}
		options = append(options, fmt.Sprintf(`"proto_version" '%s'`, version),
			fmt.Sprintf(`"publication_names" %s`, QuoteLiteral(`"`+c.config.Publication+`"`)),
			`"messages" 'on'`)
	case "test_decoding":
		options = append(options, `"include-xids" 'on'`, `"skip-empty-xacts" 'on'`)
	}
	start := c.Position()
	if c.config.FromConfirmed {
		start = c.Confirmed()
	}
	if c.config.FromSlot {
		start = 0
	}
	sql := fmt.Sprintf(`START_REPLICATION SLOT "%s" LOGICAL %v (%s)`, c.config.Slot, start, strings.Join(options, ", "))
	conn.Frontend().SendQuery(&pgproto3.Query{String: sql})
	if err := conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		msg, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(msg)
		}
	}
}

// stream reads until the connection ends or ctx does.
func (c *Consumer) stream(ctx context.Context, conn *pgconn.PgConn, server string) error {
	var dec decoder
	if c.config.Plugin == "test_decoding" {
		dec = &textDecoder{}
	} else {
		dec = newPgoutputDecoder()
	}
	const statusInterval = 200 * time.Millisecond
	nextStatus := time.Now()
	for ctx.Err() == nil {
		if !time.Now().Before(nextStatus) {
			if err := c.sendStatus(conn); err != nil {
				return err
			}
			nextStatus = time.Now().Add(statusInterval)
		}
		recvCtx, cancel := context.WithDeadline(ctx, nextStatus)
		msg, err := conn.ReceiveMessage(recvCtx)
		cancel()
		if err != nil {
			if pgconn.Timeout(err) && ctx.Err() == nil {
				continue
			}
			return err
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			reply, err := c.receive(dec, server, msg.Data)
			if err != nil {
				return err
			}
			if reply {
				nextStatus = time.Now()
			}
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyDone:
			return errors.New("the server has ended the stream")
		}
	}
	// The last confirmation, so that a stop in between loses none.
	return c.sendStatus(conn)
}

// receive handles one message of the stream and tells whether to answer now.
func (c *Consumer) receive(dec decoder, server string, data []byte) (bool, error) {
	if len(data) == 0 {
		return false, errors.New("empty CopyData")
	}
	switch data[0] {
	case 'w':
		if len(data) < 25 {
			return false, errors.New("short XLogData")
		}
		tx, err := dec.decode(LSN(binary.BigEndian.Uint64(data[1:])), data[25:])
		if err != nil || tx == nil {
			return false, err
		}
		tx.Server = server
		c.mu.Lock()
		defer c.mu.Unlock()
		c.received = append(c.received, *tx)
		c.position = max(c.position, tx.End)
		if !c.config.Manual {
			c.confirmed = max(c.confirmed, tx.End)
		}
		return true, nil
	case 'k':
		if len(data) < 18 {
			return false, errors.New("short keepalive")
		}
		position := LSN(binary.BigEndian.Uint64(data[1:]))
		c.mu.Lock()
		c.keepalives = append(c.keepalives, position)
		// Between transactions everything up to the sender's position has been
		// received, if only as nothing.
		if !dec.open() && !c.config.Manual {
			c.confirmed = max(c.confirmed, position)
		}
		c.mu.Unlock()
		return data[17] == 1, nil
	}
	return false, nil
}

// sendStatus sends a standby status update.
func (c *Consumer) sendStatus(conn *pgconn.PgConn) error {
	c.mu.Lock()
	written, flushed := max(c.position, c.confirmed), c.confirmed
	c.mu.Unlock()
	data := make([]byte, 0, 34)
	data = append(data, 'r')
	data = binary.BigEndian.AppendUint64(data, uint64(written))
	data = binary.BigEndian.AppendUint64(data, uint64(flushed))
	data = binary.BigEndian.AppendUint64(data, uint64(flushed))
	data = binary.BigEndian.AppendUint64(data, uint64(time.Since(postgresEpoch).Microseconds()))
	var reply byte
	if c.config.Ping {
		reply = 1
	}
	data = append(data, reply)
	conn.Frontend().Send(&pgproto3.CopyData{Data: data})
	return conn.Frontend().Flush()
}

var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
