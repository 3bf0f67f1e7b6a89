package main

import (
	_ "embed"
	"math"
	"os"
	"slices"
	"strings"
	"text/template"

	"github.com/replsync/replsync/regress/bench/report"
)

//go:embed slots.svg.tmpl
var svgTemplate string

// What a panel shows, and from where on its axes begin.
const (
	panelWidth  = 230
	panelHeight = 200
	panelGap    = 60
	marginLeft  = 50
	marginTop   = 64
)

type panel struct {
	Title  string
	X      float64 // of its left edge
	Lines  []line
	XTicks []tick
	YTicks []tick
}

type line struct {
	Class, Points, Label string
	Dots                 []dot
}

type dot struct{ X, Y float64 }

type tick struct {
	At    float64
	Label string
}

// draw writes the picture: time against the number of slots, both logarithmic, of the version with the most sizes that has
// a peer.
func draw(path string, points []point) error {
	sizes := map[int]map[int]bool{}
	best := 0
	for _, p := range points {
		if math.IsNaN(p.core) {
			continue
		}
		if sizes[p.version] == nil {
			sizes[p.version] = map[int]bool{}
		}
		sizes[p.version][p.slots] = true
		if len(sizes[p.version]) > len(sizes[best]) {
			best = p.version
		}
	}
	points = slices.DeleteFunc(slices.Clone(points), func(p point) bool { return p.version != best || math.IsNaN(p.core) })
	if len(points) == 0 || len(sizes[best]) < 2 {
		return nil // nothing to draw a line through
	}
	x := newScale(points, func(p point) []float64 { return []float64{float64(p.slots)} })
	y := newScale(points, func(p point) []float64 { return []float64{p.core, p.replsync} })
	var panels []panel
	for _, work := range []struct{ work, title string }{
		{"all new, until persisted", "all new"},
		{"all moved, until all copies have the position", "all moved"},
		{"nothing moved, one pass without the connect", "nothing moved"},
	} {
		p := panel{Title: work.title, X: marginLeft + float64(len(panels))*(panelWidth+panelGap)}
		for _, who := range []struct {
			class string
			of    func(point) float64
		}{{"core", func(p point) float64 { return p.core }}, {"ours", func(p point) float64 { return p.replsync }}} {
			l := line{Class: who.class}
			var text []string
			for _, pt := range points {
				if v := who.of(pt); pt.work == work.work && v > 0 {
					d := dot{round(p.X + x.place(float64(pt.slots))*panelWidth), round(marginTop + (1-y.place(v))*panelHeight)}
					l.Dots = append(l.Dots, d)
					text = append(text, report.Number(d.X)+","+report.Number(d.Y))
				}
			}
			l.Points = strings.Join(text, " ")
			p.Lines = append(p.Lines, l)
		}
		for _, v := range x.ticks() {
			p.XTicks = append(p.XTicks, tick{round(p.X + x.place(v)*panelWidth), report.Number(v)})
		}
		for _, v := range y.ticks() {
			label := report.Number(v) + " ms"
			if v >= 1000 {
				label = report.Number(v/1000) + " s"
			}
			p.YTicks = append(p.YTicks, tick{round(marginTop + (1-y.place(v))*panelHeight), label})
		}
		panels = append(panels, p)
	}
	var text strings.Builder
	err := template.Must(template.New("svg").Parse(svgTemplate)).Execute(&text, map[string]any{
		"Version": best, "Panels": panels, "Top": marginTop, "Bottom": marginTop + panelHeight, "PanelWidth": panelWidth,
		"Width": marginLeft + len(panels)*(panelWidth+panelGap) - panelGap + 20, "Height": marginTop + panelHeight + 50,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

func round(v float64) float64 { return math.Round(v*10) / 10 }

// A scale is a logarithmic axis over whole powers of ten.
type scale struct{ low, high float64 }

func newScale(points []point, of func(point) []float64) scale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, p := range points {
		for _, v := range of(p) {
			if v > 0 {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	s := scale{math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))}
	if s.low == s.high {
		s.high++
	}
	return s
}

func (s scale) place(v float64) float64 { return (math.Log10(v) - s.low) / (s.high - s.low) }

func (s scale) ticks() []float64 {
	var ticks []float64
	for exponent := s.low; exponent <= s.high; exponent++ {
		ticks = append(ticks, math.Pow(10, exponent))
	}
	return ticks
}
