// Package report holds what the benchmarks measure, compares it, and prints it as a table and as JSON.
package report

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A Series is the measurements of one thing, one a round.
type Series []float64

// Add appends a measurement.
func (s *Series) Add(v float64) { *s = append(*s, v) }

// AddDuration appends a time in milliseconds.
func (s *Series) AddDuration(d time.Duration) { s.Add(Milliseconds(d)) }

// Milliseconds is a time as most rows have it.
func Milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// Min is the smallest measurement, NaN if there is none.
func (s Series) Min() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	return slices.Min(s)
}

// Max is the largest measurement, NaN if there is none.
func (s Series) Max() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	return slices.Max(s)
}

// Median is the middle of the measurements, NaN if there is none.
func (s Series) Median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	switch n := len(sorted); {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return sorted[n/2]
	default:
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
}

// String is the median with the spread behind it.
func (s Series) String() string {
	switch len(s) {
	case 0:
		return "-"
	case 1:
		return Number(s[0])
	}
	return fmt.Sprintf("%s (%s–%s)", Number(s.Median()), Number(s.Min()), Number(s.Max()))
}

// MarshalJSON writes the measurements and what is computed of them.
func (s Series) MarshalJSON() ([]byte, error) {
	if len(s) == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(struct {
		Median float64   `json:"median"`
		Min    float64   `json:"min"`
		Max    float64   `json:"max"`
		All    []float64 `json:"all"`
	}{s.Median(), s.Min(), s.Max(), s})
}

// Number formats a value with three significant digits.
func Number(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	if v == 0 {
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	text := fmt.Sprintf("%.*f", max(digits, 0), v)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}
