package publisher_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/publisher"
)

// anonymous is the private memory of a process in kB.
func anonymous(b *testing.B, pid uint32) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(b, err)
	m := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(b, m)
	kb, err := strconv.ParseFloat(string(m[1]), 64)
	require.NoError(b, err)
	return kb
}

// BenchmarkValues reads all sequences of a publisher once, and shows the memory of the largest session.
func BenchmarkValues(b *testing.B) {
	s := start(b)
	const n = 100000
	conn := s.session(b)
	for first := 0; first < n; first += 2000 {
		_, err := conn.Exec(b.Context(), fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP
			EXECUTE format('CREATE SEQUENCE s%%s', i); PERFORM setval(format('s%%s', i), 5); END LOOP; END $$`, first, first+1999))
		require.NoError(b, err)
	}
	s.exec(b, "VACUUM ANALYZE")
	names := make([]host.SequenceName, n)
	for i := range names {
		names[i] = name("public", fmt.Sprintf("s%d", i))
	}
	portions, limits := []int{500, 1000, 2000}, []int{0}
	if os.Getenv("REPLSYNC_BENCH_LIMITS") != "" {
		portions, limits = []int{1000}, []int{5000, 10000, 15000, 20000, 1 << 30}
	}
	run := func(portion, limit int, when string) {
		b.Run(fmt.Sprintf("portion=%d/limit=%d/%s", portion, limit, when), func(b *testing.B) {
			c := publisher.New(s.connect("postgres"), publisher.Options{MaxReads: limit})
			defer c.Close()
			most := 0.0
			for b.Loop() {
				for rest := names; len(rest) > 0; rest = rest[portion:] {
					v, err := c.Values(b.Context(), rest[:portion])
					require.NoError(b, err)
					require.Equal(b, publisher.None, v[0].Problem)
					most = max(most, anonymous(b, c.PIDForTest()))
				}
			}
			b.ReportMetric(most/1024, "MiB")
		})
	}
	for _, portion := range portions {
		for _, limit := range limits {
			run(portion, limit, "called")
		}
	}
	for first := 0; first < n; first += 2000 {
		_, err := conn.Exec(b.Context(), fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP
			PERFORM setval(format('s%%s', i), 5, false); END LOOP; END $$`, first, first+1999))
		require.NoError(b, err)
	}
	run(1000, 0, "uncalled")
}

// BenchmarkSelect finds the sequences of many tables.
func BenchmarkSelect(b *testing.B) {
	s := start(b)
	conn := s.session(b)
	for first := 0; first < 20000; first += 1000 {
		_, err := conn.Exec(b.Context(), fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP
			EXECUTE format('CREATE TABLE t%%s (id serial)', i); END LOOP; END $$`, first, first+999))
		require.NoError(b, err)
	}
	s.exec(b, "CREATE PUBLICATION p FOR ALL TABLES")
	for _, analyzed := range []bool{false, true} {
		if analyzed {
			s.exec(b, "VACUUM ANALYZE")
		}
		for _, all := range []bool{false, true} {
			b.Run(fmt.Sprintf("analyzed=%t/all=%t", analyzed, all), func(b *testing.B) {
				c := publisher.New(s.connect("postgres"), publisher.Options{})
				defer c.Close()
				for b.Loop() {
					n := 0
					require.NoError(b, c.Select(b.Context(), []string{"p"}, host.SequenceSelection{All: all},
						func(part []host.SequenceName) error { n += len(part); return nil }))
					require.Equal(b, 20000, n)
				}
			})
		}
	}
}
