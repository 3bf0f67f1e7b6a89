package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// receivedTx is a transaction of a writer as a consumer gets it.
func receivedTx(id string, seq, rows, total int, end cluster.LSN) cluster.Tx {
	tx := cluster.Tx{Kind: "commit", End: end}
	for i := range rows {
		part := strconv.Itoa(i + 1)
		tx.Changes = append(tx.Changes, cluster.Change{Kind: "insert", Relation: "public.events",
			Row: map[string]string{"tx": id, "part": part, "chk": id + "/" + part}})
	}
	tx.Changes = append(tx.Changes, cluster.Change{Kind: "insert", Relation: "public.ledger",
		Row: map[string]string{"tx": id, "writer": "w1", "seq": strconv.Itoa(seq), "total": strconv.Itoa(total), "n": strconv.Itoa(seq)}})
	return tx
}

func newJudge(config streamConfig) *stream {
	return &stream{streamConfig: config, pending: map[string]delivery{}, seen: map[string]seenAt{}}
}

func TestTornTransactions(t *testing.T) {
	whole := receivedTx("a", 1, 2, 2, 10)
	require.Empty(t, read(whole).torn)
	require.Nil(t, read(cluster.Tx{Kind: "commit"}))
	require.Equal(t, "1 of 2 rows", read(receivedTx("a", 1, 1, 2, 10)).torn)
	require.Contains(t, read(cluster.Tx{Changes: whole.Changes[:2]}).torn, "not that of ledger")
	foreign := receivedTx("a", 1, 1, 2, 10)
	foreign.Changes = append(foreign.Changes, receivedTx("b", 1, 1, 1, 10).Changes[0])
	require.Contains(t, read(foreign).torn, "a row of b/1")
	whole.Changes[0].Row["chk"] = "garbage"
	require.Contains(t, read(whole).torn, "read as insert public.events chk=garbage")
}

func TestSentAgain(t *testing.T) {
	for _, c := range []struct {
		config     streamConfig
		sameStream bool
		start      cluster.LSN
		want       counts
	}{
		{sameStream: true, want: counts{received: 1, duplicated: 1, disordered: 1}},
		{start: 5, want: counts{received: 1, resent: 1}},
		{start: 10, want: counts{received: 1, duplicated: 1}},
		{config: streamConfig{position: true}, start: 5, want: counts{received: 1, duplicated: 1}},
	} {
		s := newJudge(c.config)
		s.take(receivedTx("a", 1, 1, 1, 10))
		if !c.sameStream {
			s.connection, s.start, s.lastEnd = 1, c.start, 0
		}
		s.take(receivedTx("a", 1, 1, 1, 10))
		require.Equal(t, c.want, s.count, "%+v", c)
	}
}

func TestPrepared(t *testing.T) {
	s := newJudge(streamConfig{twoPhase: true})
	prepare := receivedTx("a", 1, 1, 1, 10)
	prepare.Kind, prepare.GID = "prepare", "a"
	s.take(prepare)
	s.take(cluster.Tx{Kind: "commit prepared", GID: "a", End: 20})
	s.take(cluster.Tx{Kind: "commit prepared", GID: "b", End: 30})
	prepare.GID = "c"
	s.take(prepare)
	order, c, _ := s.settle()
	require.Len(t, order, 1)
	require.Equal(t, counts{received: 1, torn: 1, phantom: 1}, c)
}

func TestCompare(t *testing.T) {
	const marker = "m"
	r := &run{load: newWorkload()}
	orders := map[string]map[string]int{}
	compare := func(s *stream, want string, order ...string) counts {
		r.problems = nil
		set := map[string]bool{}
		for _, id := range strings.Fields(want) {
			set[id] = true
		}
		var list []delivery
		for _, id := range order {
			// Each has a writer of its own: only the other consumers know the order.
			list = append(list, delivery{id: id, writer: id, seq: 1})
		}
		var c counts
		r.compare(s, list, set, marker, orders, &c)
		require.Len(t, r.problems, c.lost+c.phantom+c.disordered, fmt.Sprint(r.problems))
		return c
	}
	s := newJudge(streamConfig{})
	require.Zero(t, compare(s, "a b c", "a", "b", "c", marker))
	require.Zero(t, compare(s, "a b c", "a", "b", "c", marker))
	require.Equal(t, counts{lost: 1}, compare(s, "a b c", "a", "c", marker))
	require.Equal(t, counts{phantom: 1}, compare(s, "a b", "a", "b", "c", marker))
	require.Equal(t, 1, compare(s, "a b c", "a", "c", "b", marker).disordered)
	s.since = time.Now()
	require.Zero(t, compare(s, "a b c", "c", marker), "what began before the slot was there")

	list := []delivery{{id: "x", writer: "w", seq: 2}, {id: "y", writer: "w", seq: 1}}
	var c counts
	r.compare(newJudge(streamConfig{database: "other"}), list, map[string]bool{"x": true, "y": true}, marker, orders, &c)
	require.Equal(t, counts{disordered: 1}, c, "order of a writer")
}

func TestSeed(t *testing.T) {
	for n := range 20 {
		require.Equal(t, decide(n), decide(n))
	}
	require.NotEqual(t, decide(1), decide(3))
}
