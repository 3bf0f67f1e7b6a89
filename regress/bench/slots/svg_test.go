package main

import (
	"encoding/xml"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDraw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slots.svg")
	var points []point
	for _, work := range []string{"all new, until persisted", "all moved, until all copies have the position", "nothing moved, one pass without the connect"} {
		points = append(points, point{15, 10, work, math.NaN(), 1}, point{17, 10, work, 20, 0}, point{17, 100, work, 200, 20}, point{18, 10, work, 20, 2})
	}
	require.NoError(t, draw(path, points))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(text), ">PostgreSQL 17<", "the version with the most sizes")
	require.Equal(t, 9, strings.Count(string(text), "<circle"), "what is not above 0 has no place")
	require.NotContains(t, string(text), "NaN")
	decoder := xml.NewDecoder(strings.NewReader(string(text)))
	for err == nil {
		_, err = decoder.Token()
	}
	require.ErrorIs(t, err, io.EOF)

	require.NoError(t, draw(filepath.Join(t.TempDir(), "none", "none.svg"), points[:1]), "there is no line, and so no picture")
}
