// The benchmark of sequences on a subscriber: replsync beside what PostgreSQL has since 19, beside a psql script, and
// beside the floor, which is one statement that sets all sequences from a local table. They take turns, with fsync on.
//
//	make bench-sequences BENCH_FLAGS='-help'
package main

import (
	"strconv"
	"strings"

	"github.com/replsync/replsync/regress/bench/harness"
)

const (
	firstData = 18 // pg_get_sequence_data()
	firstCore = 19 // core synchronizes sequences
)

func main() {
	p := harness.New("sequences")
	p.Rounds = 3
	sizes := p.Flags.String("sequences", "1000,10000,100000", "numbers of sequences")
	psql := p.Flags.Int("psql-up-to", 10000, "leave the psql script out with more sequences than this")
	p.Part("sequences", "all, some and none changed; the first sync; memory", func(b *harness.B) {
		versions := b.Versions()
		major := versions[len(versions)-1]
		if major < firstCore {
			b.Note("PostgreSQL %d has no peer to compare with: core synchronizes sequences since %d", major, firstCore)
		}
		for _, text := range strings.FieldsFunc(*sizes, func(r rune) bool { return r == ',' || r == ' ' }) {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				b.Fatalf("-sequences: %q is not a number of sequences", text)
			}
			measure(b, major, n, n <= *psql)
		}
	})
	p.Main()
}
