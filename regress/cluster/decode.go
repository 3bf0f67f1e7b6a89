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

// pgoutputDecoder reads the messages of pgoutput, without streaming of
// transactions in progress.
type pgoutputDecoder struct {
	relations map[uint32]pgoutputRelation
	tx        *Tx
}

type pgoutputRelation struct {
	name    string
	columns []string
}

func (d *pgoutputDecoder) open() bool { return d.tx != nil }

func (d *pgoutputDecoder) decode(position LSN, data []byte) (tx *Tx, err error) {
	r := &reader{data: data}
	defer func() {
		if err == nil {
			err = r.err
		}
	}()
	kind := r.byte()
	switch kind {
	case 'B':
		r.uint64()
		r.uint64()
		d.tx = &Tx{XID: r.uint32(), Kind: "commit"}
		return nil, nil
	case 'b', 'P': // begin prepare, prepare
		if kind == 'P' {
			r.byte()
		}
		r.uint64()
		end := LSN(r.uint64())
		r.uint64()
		xid, gid := r.uint32(), r.string()
		if kind == 'b' {
			d.tx = &Tx{XID: xid, GID: gid, Kind: "prepare"}
			return nil, nil
		}
		return d.finish(end)
	case 'C':
		r.byte()
		r.uint64()
		return d.finish(LSN(r.uint64()))
	case 'K', 'r': // commit prepared, rollback prepared
		r.byte()
		r.uint64()
		end := LSN(r.uint64())
		r.uint64()
		name := "commit prepared"
		if kind == 'r' {
			name = "rollback prepared"
			r.uint64()
		}
		return &Tx{Kind: name, End: end, XID: r.uint32(), GID: r.string()}, nil
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
		return nil, d.add(Change{Kind: "insert", Relation: rel.name, Row: r.tuple(rel)})
	case 'U':
		rel := d.relations[r.uint32()]
		if tag := r.byte(); tag != 'N' {
			r.tuple(rel)
			r.byte()
		}
		return nil, d.add(Change{Kind: "update", Relation: rel.name, Row: r.tuple(rel)})
	case 'D':
		rel := d.relations[r.uint32()]
		r.byte()
		return nil, d.add(Change{Kind: "delete", Relation: rel.name, Row: r.tuple(rel)})
	case 'T':
		n := r.uint32()
		r.byte()
		for range n {
			if err := d.add(Change{Kind: "truncate", Relation: d.relations[r.uint32()].name}); err != nil {
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
		return nil, d.add(change)
	case 'Y', 'O': // type, origin
		return nil, nil
	default:
		return nil, fmt.Errorf("pgoutput: unknown message %q", kind)
	}
}

func (d *pgoutputDecoder) add(change Change) error {
	if d.tx == nil {
		return errors.New("pgoutput: a change outside of a transaction")
	}
	d.tx.Changes = append(d.tx.Changes, change)
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
