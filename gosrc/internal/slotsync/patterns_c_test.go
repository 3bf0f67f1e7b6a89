package slotsync

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPatternsInC asks the C part, which needs to know on the primary which slots are kept, for the same answers. The
// values are the ones of the tests above and made-up ones.
func TestPatternsInC(t *testing.T) {
	program := filepath.Join(t.TempDir(), "patterns")
	root := filepath.Join("..", "..", "..")
	out, err := exec.Command("gcc", "-Wall", "-D_GNU_SOURCE", "-I"+filepath.Join(root, "ext"), "-o", program,
		filepath.Join(root, "ext", "slot_patterns.c"), filepath.Join(root, "regress", "selftest", "patterns.c")).CombinedOutput()
	require.NoError(t, err, "%s", out)

	var questions, answers []string
	ask := func(value string, major int, name string, failover bool) {
		questions = append(questions, fmt.Sprintf("%s\t%d\t%s\t%v\n", value, major, name, failover))
		answer := "unwanted"
		if p, err := ParsePatterns(value, major); err != nil {
			answer = "invalid"
		} else if p.Wanted(name, failover) {
			answer = "wanted"
		}
		answers = append(answers, answer)
	}
	for _, tt := range patternTests {
		for _, name := range strings.Fields(tt.wanted + " " + tt.failover + " " + tt.unwanted) {
			ask(tt.value, tt.major, name, false)
			ask(tt.value, tt.major, name, true)
		}
	}
	for _, value := range append(badPatterns, goodPatterns...) {
		ask(value, 15, "a", false)
	}
	pieces := []string{"a", "b", "*", "?", "!", ",", " ", "_", "1", failoverWord, "A", "-", strings.Repeat("x", 62)}
	random := rand.New(rand.NewPCG(1, 2))
	word := func(pieces []string, most int) string {
		var b strings.Builder
		for range random.IntN(most + 1) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		return b.String()
	}
	for range 50000 {
		// Mostly values that are valid, as those decide.
		value := word(pieces[:8], 9)
		if random.IntN(4) == 0 {
			value = word(pieces, 9)
		}
		ask(value, 15+random.IntN(5), "a"+word(pieces[:2], 4), random.IntN(2) == 0)
	}

	cmd := exec.Command(program)
	cmd.Stdin = strings.NewReader(strings.Join(questions, ""))
	out, err = cmd.Output()
	require.NoError(t, err)
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, got, len(answers))
	seen := map[string]int{}
	for i, answer := range answers {
		require.Equal(t, answer, got[i], "%q", questions[i])
		seen[answer]++
	}
	for _, answer := range []string{"invalid", "wanted", "unwanted"} {
		require.Greater(t, seen[answer], len(answers)/20, answer)
	}
}
