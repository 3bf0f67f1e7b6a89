package report

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// A Row compares what replsync needs for some work with what a peer needs for the same.
type Row struct {
	Version int    // major version of PostgreSQL
	Work    string // as in "500 slots, all moved"
	Unit    string // of both series, as in "ms"

	Peer     string // as in "core", empty where there is nothing to compare with
	Theirs   Series
	Replsync Series

	Targets []Target
}

// A Target is what a row should reach.
type Target struct {
	text    string
	value   func(Row) float64
	bound   float64
	atLeast bool
}

// RatioAtMost bounds replsync's median over the peer's.
func RatioAtMost(bound float64) Target {
	return Target{text: "ratio ≤ " + Number(bound), value: Row.Ratio, bound: bound}
}

// RatioAtLeast bounds replsync's median over the peer's from below.
func RatioAtLeast(bound float64) Target {
	return Target{text: "ratio ≥ " + Number(bound), value: Row.Ratio, bound: bound, atLeast: true}
}

// MedianAtMost bounds replsync's median.
func MedianAtMost(bound float64) Target {
	return Target{text: "≤ " + Number(bound), value: func(r Row) float64 { return r.Replsync.Median() }, bound: bound}
}

// MaxAtMost bounds replsync's largest measurement.
func MaxAtMost(bound float64) Target {
	return Target{text: "max ≤ " + Number(bound), value: func(r Row) float64 { return r.Replsync.Max() }, bound: bound}
}

// Ratio is replsync's median over the peer's, NaN where there is nothing to compare.
func (r Row) Ratio() float64 {
	if len(r.Theirs) == 0 || r.Theirs.Median() == 0 {
		return math.NaN()
	}
	return r.Replsync.Median() / r.Theirs.Median()
}

// Ratios compares the rounds one by one, which shows what a machine that others use adds. It is empty unless the
// series were measured in the same rounds.
func (r Row) Ratios() Series {
	if len(r.Theirs) != len(r.Replsync) {
		return nil
	}
	var ratios Series
	for i, theirs := range r.Theirs {
		if theirs == 0 {
			return nil
		}
		ratios.Add(r.Replsync[i] / theirs)
	}
	return ratios
}

// Reached tells whether the row has targets, and reaches all of them. What was not measured is not reached.
func (r Row) Reached() (has, reached bool) {
	reached = true
	for _, t := range r.Targets {
		v := t.value(r)
		if math.IsNaN(v) || t.atLeast && v < t.bound || !t.atLeast && v > t.bound {
			reached = false
		}
	}
	return len(r.Targets) > 0, reached
}

func (r Row) target() string {
	var texts []string
	for _, t := range r.Targets {
		texts = append(texts, t.text)
	}
	return strings.Join(texts, ", ")
}

func (r Row) verdict() string {
	switch has, reached := r.Reached(); {
	case !has:
		return ""
	case reached:
		return "yes"
	default:
		return "no"
	}
}

// ratio is the ratio of the medians, with the spread of the rounds behind it.
func (r Row) ratio() string {
	text := Number(r.Ratio())
	if ratios := r.Ratios(); len(ratios) > 1 {
		text += fmt.Sprintf(" (%s–%s)", Number(ratios.Min()), Number(ratios.Max()))
	}
	return text
}

// MarshalJSON writes the row and what is computed of it.
func (r Row) MarshalJSON() ([]byte, error) {
	row := struct {
		Version  int      `json:"version"`
		Work     string   `json:"work"`
		Unit     string   `json:"unit"`
		Peer     string   `json:"peer,omitempty"`
		Theirs   Series   `json:"theirs"`
		Replsync Series   `json:"replsync"`
		Ratio    *float64 `json:"ratio"`
		Ratios   Series   `json:"ratios"`
		Target   string   `json:"target,omitempty"`
		Reached  *bool    `json:"reached"`
	}{Version: r.Version, Work: r.Work, Unit: r.Unit, Peer: r.Peer, Theirs: r.Theirs, Replsync: r.Replsync,
		Ratios: r.Ratios(), Target: r.target()}
	if ratio := r.Ratio(); !math.IsNaN(ratio) {
		row.Ratio = &ratio
	}
	if has, reached := r.Reached(); has {
		row.Reached = &reached
	}
	return json.Marshal(row)
}
