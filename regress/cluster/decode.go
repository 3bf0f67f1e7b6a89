package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A decoder turns a plugin's messages into transactions. decode returns one when
// it is complete, and open tells whether one is not.
type decoder interface {
	decode(position LSN, data []byte) (*Tx, error)
	open() bool
}

// textDecoder reads the output of test_decoding.
type textDecoder struct{ tx *Tx }

var (
	reBegin    = regexp.MustCompile(`^BEGIN (\d+)`)
	reTable    = regexp.MustCompile(`^table (\S+): (INSERT|UPDATE|DELETE|TRUNCATE):(.*)`)
	reColumn   = regexp.MustCompile(`(?s)(\w+|"[^"]+")\[[^\]]*(?:\[\])?\]:('(?:[^']|'')*'|\S+)`)
	rePrepared = regexp.MustCompile(`^(PREPARE TRANSACTION|COMMIT PREPARED|ROLLBACK PREPARED) '(.*)'(?:, txid (\d+))?`)
)

func (d *textDecoder) open() bool { return d.tx != nil }

func (d *textDecoder) decode(position LSN, data []byte) (*Tx, error) {
	line := string(data)
	if m := reBegin.FindStringSubmatch(line); m != nil {
		xid, err := strconv.ParseUint(m[1], 10, 32)
		d.tx = &Tx{XID: uint32(xid), Kind: "commit"}
		return nil, err
	}
	if m := rePrepared.FindStringSubmatch(line); m != nil {
		tx := d.tx
		if tx == nil {
			tx = &Tx{}
		}
		d.tx = nil
		tx.Kind, tx.GID, tx.End = preparedKind(m[1]), m[2], position
		return tx, nil
	}
	if strings.HasPrefix(line, "COMMIT") {
		tx := d.tx
		d.tx = nil
		if tx == nil {
			return nil, errors.New("test_decoding: COMMIT without BEGIN")
		}
		// test_decoding's commit is sent at the end of the transaction.
		tx.End = position
		return tx, nil
	}
	change := Change{Kind: "message", Row: map[string]string{"text": line}}
	if m := reTable.FindStringSubmatch(line); m != nil {
		change = Change{Kind: strings.ToLower(m[2]), Relation: m[1], Row: map[string]string{}}
		row := m[3]
		if _, after, ok := strings.Cut(row, "new-tuple:"); ok {
			row = after
		}
		for _, col := range reColumn.FindAllStringSubmatch(row, -1) {
			if col[2] != "null" && col[2] != "unchanged-toast-datum" {
				change.Row[strings.Trim(col[1], `"`)] = unquoteText(col[2])
			}
		}
	}
	if d.tx == nil {
		// A message outside of a transaction.
		return &Tx{Kind: "message", End: position, Changes: []Change{change}}, nil
	}
	d.tx.Changes = append(d.tx.Changes, change)
	return nil, nil
}

func preparedKind(words string) string {
	switch words {
	case "PREPARE TRANSACTION":
		return "prepare"
	case "COMMIT PREPARED":
		return "commit prepared"
	default:
		return "rollback prepared"
	}
}

func unquoteText(value string) string {
	if len(value) >= 2 && value[0] == '\'' {
		return strings.ReplaceAll(value[1:len(value)-1], "''", "'")
	}
	return value
}

// pgoutputDecoder reads the messages of pgoutput. Transactions in progress come
// in blocks, whose messages name the transaction or subtransaction they are of.
type pgoutputDecoder struct {
	relations map[uint32]pgoutputRelation
	tx        *Tx
	streamed  map[uint32]*streamedTx
	block     *streamedTx
}

type pgoutputRelation struct {
	name    string
	columns []string
}

// A streamedTx is a transaction that has not ended.
type streamedTx struct {
	changes []Change
	xids    []uint32 // of each change
}

// abort forgets the changes of a subtransaction.
func (s *streamedTx) abort(xid uint32) {
	var kept streamedTx
	for i, x := range s.xids {
		if x != xid {
			kept.changes, kept.xids = append(kept.changes, s.changes[i]), append(kept.xids, x)
		}
	}
	*s = kept
}

func newPgoutputDecoder() *pgoutputDecoder {
	return &pgoutputDecoder{relations: map[uint32]pgoutputRelation{}, streamed: map[uint32]*streamedTx{}}
}

func (d *pgoutputDecoder) open() bool { return d.tx != nil || d.block != nil }

func (d *pgoutputDecoder) decode(position LSN, data []byte) (tx *Tx, err error) {
	r := &reader{data: data}
	defer func() {
		if err == nil {
			err = r.err
		}
	}()
	switch kind := r.byte(); kind {
	case 'B':
		r.uint64()
		r.uint64()
		d.tx = &Tx{XID: r.uint32(), Kind: "commit"}
		return nil, nil
	case 'C':
		r.byte()
		r.uint64()
		return d.finish(LSN(r.uint64()))
	case 'b', 'P', 'K', 'r', 'p':
		return d.decodePrepared(kind, r)
	case 'S', 'E', 'A', 'c':
		return d.decodeStreamed(kind, r)
	case 'Y', 'O': // type, origin
		return nil, nil
	default:
		return d.decodeChange(kind, position, r)
	}
}

// decodePrepared reads the messages about prepared transactions.
func (d *pgoutputDecoder) decodePrepared(kind byte, r *reader) (*Tx, error) {
	if kind != 'b' {
		r.byte()
	}
	r.uint64()
	end := LSN(r.uint64())
	r.uint64()
	if kind == 'r' {
		r.uint64()
	}
	tx := &Tx{XID: r.uint32(), GID: r.string(), End: end}
	switch kind {
	case 'b':
		tx.Kind = "prepare"
		d.tx = tx
		return nil, nil
	case 'P':
		return d.finish(end)
	case 'p': // prepare of a transaction that was streamed
		tx.Kind = "prepare"
		tx.Changes = d.endStreamed(tx.XID)
	case 'K':
		tx.Kind = "commit prepared"
	case 'r':
		tx.Kind = "rollback prepared"
	}
	return tx, nil
}

// decodeStreamed reads the messages about transactions in progress.
func (d *pgoutputDecoder) decodeStreamed(kind byte, r *reader) (*Tx, error) {
	if kind == 'E' {
		d.block = nil
		return nil, nil
	}
	xid := r.uint32()
	switch kind {
	case 'S':
		if d.streamed[xid] == nil {
			d.streamed[xid] = &streamedTx{}
		}
		d.block = d.streamed[xid]
	case 'A':
		if subxid := r.uint32(); subxid == xid {
			delete(d.streamed, xid)
		} else if s := d.streamed[xid]; s != nil {
			s.abort(subxid)
		}
	case 'c':
		r.byte()
		r.uint64()
		return &Tx{XID: xid, Kind: "commit", End: LSN(r.uint64()), Changes: d.endStreamed(xid)}, nil
	}
	return nil, nil
}

func (d *pgoutputDecoder) endStreamed(xid uint32) []Change {
	s := d.streamed[xid]
	delete(d.streamed, xid)
	if s == nil {
		return nil
	}
	return s.changes
}

// decodeChange reads the messages inside of a transaction, and of relations.
func (d *pgoutputDecoder) decodeChange(kind byte, position LSN, r *reader) (*Tx, error) {
	var xid uint32
	if d.block != nil {
		xid = r.uint32()
	}
	switch kind {
	case 'R':
		id := r.uint32()
		rel := pgoutputRelation{name: r.string() + "." + r.string()}
		r.byte()
		for range r.uint16() {
			r.byte()
			rel.columns = append(rel.columns, r.string())
			r.uint32()
			r.uint32()
		}
		d.relations[id] = rel
		return nil, nil
	case 'I':
		rel := d.relations[r.uint32()]
		r.byte()
		return nil, d.add(xid, Change{Kind: "insert", Relation: rel.name, Row: r.tuple(rel)})
	case 'U':
		rel := d.relations[r.uint32()]
		if tag := r.byte(); tag != 'N' {
			r.tuple(rel)
			r.byte()
		}
		return nil, d.add(xid, Change{Kind: "update", Relation: rel.name, Row: r.tuple(rel)})
	case 'D':
		rel := d.relations[r.uint32()]
		r.byte()
		return nil, d.add(xid, Change{Kind: "delete", Relation: rel.name, Row: r.tuple(rel)})
	case 'T':
		n := r.uint32()
		r.byte()
		for range n {
			if err := d.add(xid, Change{Kind: "truncate", Relation: d.relations[r.uint32()].name}); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case 'M':
		transactional := r.byte() == 1
		r.uint64()
		change := Change{Kind: "message", Row: map[string]string{"prefix": r.string()}}
		change.Row["text"] = string(r.bytes(int(r.uint32())))
		if !transactional {
			return &Tx{Kind: "message", End: position, Changes: []Change{change}}, nil
		}
		return nil, d.add(xid, change)
	default:
		return nil, fmt.Errorf("pgoutput: unknown message %q", kind)
	}
}

func (d *pgoutputDecoder) add(xid uint32, change Change) error {
	switch {
	case d.block != nil:
		d.block.changes, d.block.xids = append(d.block.changes, change), append(d.block.xids, xid)
	case d.tx != nil:
		d.tx.Changes = append(d.tx.Changes, change)
	default:
		return errors.New("pgoutput: a change outside of a transaction")
	}
	return nil
}

func (d *pgoutputDecoder) finish(end LSN) (*Tx, error) {
	tx := d.tx
	d.tx = nil
	if tx == nil {
		return nil, errors.New("pgoutput: the end of a transaction without its beginning")
	}
	tx.End = end
	return tx, nil
}

// A reader takes fields off a message. After its end it returns zeros and
// remembers the error.
type reader struct {
	data []byte
	err  error
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.data) {
		r.err, r.data = errors.New("pgoutput: short message"), nil
		return make([]byte, min(max(n, 0), 8))
	}
	field := r.data[:n]
	r.data = r.data[n:]
	return field
}

func (r *reader) byte() byte     { return r.bytes(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.bytes(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.bytes(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.bytes(8)) }

func (r *reader) string() string {
	end := bytes.IndexByte(r.data, 0)
	if end < 0 {
		r.bytes(len(r.data) + 1)
		return ""
	}
	text := string(r.bytes(end))
	r.bytes(1)
	return text
}

func (r *reader) tuple(rel pgoutputRelation) map[string]string {
	row := map[string]string{}
	for i := range int(r.uint16()) {
		kind := r.byte()
		if kind != 't' && kind != 'b' {
			continue
		}
		value := string(r.bytes(int(r.uint32())))
		if i < len(rel.columns) {
			row[rel.columns[i]] = value
		}
	}
	return row
}
