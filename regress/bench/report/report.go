package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// A Report is what one run of a benchmark has found.
type Report struct {
	Name    string    `json:"name"`
	Began   time.Time `json:"began"`
	Machine Machine   `json:"machine"`
	Servers []string  `json:"servers"` // the full versions of what was measured
	Rows    []Row     `json:"rows"`
	Notes   []string  `json:"notes"` // what was left out and why, and what else a reader should know
}

// New begins a report. dir is where the servers' data will be.
func New(name, dir string) *Report {
	return &Report{Name: name, Began: time.Now(), Machine: ThisMachine(dir)}
}

// Add appends rows.
func (r *Report) Add(rows ...Row) { r.Rows = append(r.Rows, rows...) }

// Note appends a note, once.
func (r *Report) Note(format string, args ...any) {
	r.Notes = addOnce(r.Notes, fmt.Sprintf(format, args...))
}

// Server appends the version of a server or of an extension, once.
func (r *Report) Server(format string, args ...any) {
	r.Servers = addOnce(r.Servers, fmt.Sprintf(format, args...))
}

func addOnce(list []string, text string) []string {
	for _, have := range list {
		if have == text {
			return list
		}
	}
	return append(list, text)
}

// Missed returns the rows that do not reach their targets.
func (r *Report) Missed() []Row {
	var missed []Row
	for _, row := range r.Rows {
		if has, reached := row.Reached(); has && !reached {
			missed = append(missed, row)
		}
	}
	return missed
}

// Print writes the report as a table, which is Markdown too. Times are medians, with the smallest and the
// largest in parentheses.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%s\n", r.Machine)
	if len(r.Servers) > 0 {
		fmt.Fprintf(w, "%s\n", strings.Join(r.Servers, ", "))
	}
	fmt.Fprintf(w, "Median (min–max); ratio of the medians (min–max of the rounds).\n\n")
	table := [][]string{{"PG", "work", "unit", "peer", "peer's", "replsync", "ratio", "target", "reached"}}
	for _, row := range r.Rows {
		table = append(table, []string{fmt.Sprint(row.Version), row.Work, row.Unit, row.Peer, row.Theirs.String(),
			row.Replsync.String(), row.ratio(), row.target(), row.verdict()})
	}
	printTable(w, table)
	for _, note := range r.Notes {
		fmt.Fprintf(w, "\n- %s", note)
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(w)
	}
}

func printTable(w io.Writer, table [][]string) {
	widths := make([]int, len(table[0]))
	for _, row := range table {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	line := func(cells []string) {
		for i, cell := range cells {
			fmt.Fprintf(w, "| %s%s ", cell, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
		}
		fmt.Fprintln(w, "|")
	}
	line(table[0])
	for _, width := range widths {
		fmt.Fprintf(w, "|%s", strings.Repeat("-", width+2))
	}
	fmt.Fprintln(w, "|")
	for _, row := range table[1:] {
		line(row)
	}
}

// WriteJSON writes the report to a file.
func (r *Report) WriteJSON(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
