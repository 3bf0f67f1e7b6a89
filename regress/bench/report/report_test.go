package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSeries(t *testing.T) {
	var s Series
	require.Equal(t, "-", s.String())
	s.AddDuration(1500 * time.Microsecond)
	require.Equal(t, "1.5", s.String())
	s.Add(4)
	require.Equal(t, "2.75 (1.5–4)", s.String())
	s.Add(1000)
	require.Equal(t, "4 (1.5–1000)", s.String())
	require.Equal(t, Series{1.5, 4, 1000}, s, "the order of the rounds stays")
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.01234: "0.0123", 0.5: "0.5", 1: "1", 9.996: "10", 12.34: "12.3", 100: "100", 1234.5: "1234", 120000: "120000", -2.5: "-2.5",
	} {
		require.Equal(t, want, Number(v))
	}
}

func TestRow(t *testing.T) {
	row := Row{Version: 17, Work: "w", Unit: "ms", Peer: "core", Theirs: Series{10, 20, 40}, Replsync: Series{1, 2, 8}}
	require.InDelta(t, 0.1, row.Ratio(), 1e-9)
	require.Equal(t, "0.1 (0.1–0.2)", row.ratio())
	require.Equal(t, "", row.verdict())
	for text, c := range map[string]struct {
		target Target
		want   string
	}{
		"ratio ≤ 0.1":  {RatioAtMost(0.1), "yes"},
		"ratio ≤ 0.09": {RatioAtMost(0.09), "no"},
		"ratio ≥ 0.1":  {RatioAtLeast(0.1), "yes"},
		"ratio ≥ 0.95": {RatioAtLeast(0.95), "no"},
		"≤ 2":          {MedianAtMost(2), "yes"},
		"max ≤ 7":      {MaxAtMost(7), "no"},
	} {
		row.Targets = []Target{c.target}
		require.Equal(t, c.want, row.verdict(), text)
		require.Equal(t, text, row.target())
	}
	row.Targets = []Target{MedianAtMost(2), MaxAtMost(7)}
	require.Equal(t, "no", row.verdict())
	require.Equal(t, "≤ 2, max ≤ 7", row.target())

	alone := Row{Replsync: Series{1}, Targets: []Target{RatioAtMost(1)}}
	require.Equal(t, "no", alone.verdict(), "what was not compared is not reached")
	require.Equal(t, "-", alone.ratio())
}

func TestReport(t *testing.T) {
	r := New("test", t.TempDir())
	r.Server("PostgreSQL 17.1")
	r.Server("PostgreSQL 17.1")
	r.Add(Row{Version: 17, Work: "good", Theirs: Series{1}, Replsync: Series{1}, Targets: []Target{RatioAtMost(1)}},
		Row{Version: 17, Work: "bad", Replsync: Series{1}, Targets: []Target{MedianAtMost(0.5)}})
	r.Note("left out: %s", "all")
	var text strings.Builder
	r.Print(&text)
	require.Contains(t, text.String(), "| 17 | bad  |")
	require.Equal(t, 1, strings.Count(text.String(), "PostgreSQL 17.1"))
	require.Contains(t, text.String(), "- left out: all\n")
	require.Len(t, r.Missed(), 1)

	path := filepath.Join(t.TempDir(), "r.json")
	require.NoError(t, r.WriteJSON(path))
	written, err := os.ReadFile(path)
	require.NoError(t, err)
	var parsed struct {
		Rows []struct {
			Work    string
			Ratio   *float64
			Reached *bool
			Theirs  *struct{ Median float64 }
		}
	}
	require.NoError(t, json.Unmarshal(written, &parsed))
	require.Len(t, parsed.Rows, 2)
	require.True(t, *parsed.Rows[0].Reached)
	require.InDelta(t, 1, *parsed.Rows[0].Ratio, 0)
	require.Nil(t, parsed.Rows[1].Ratio)
	require.Nil(t, parsed.Rows[1].Theirs)
}
