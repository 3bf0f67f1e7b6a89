package harness

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/bench/report"
)

func TestPartsThatFail(t *testing.T) {
	p := New("test")
	r := report.New("test", t.TempDir())
	var order []string
	cleanUp := func(b *B, what string) { b.Cleanup(func() { order = append(order, what) }) }
	require.True(t, p.run(r, part{"good", "", func(b *B) { b.Add(report.Row{Work: "done"}) }}))
	require.False(t, p.run(r, part{"bad", "", func(b *B) {
		cleanUp(b, "first")
		cleanUp(b, "second")
		b.Fatalf("it is %s", "bad")
		order = append(order, "went on")
	}}))
	require.False(t, p.run(r, part{"worse", "", func(b *B) {
		cleanUp(b, "third")
		panic("worse")
	}}))
	require.Equal(t, []string{"second", "first", "third"}, order)
	require.Len(t, r.Rows, 1)
	require.Len(t, r.Notes, 2)
	require.Equal(t, "part bad failed: it is bad", r.Notes[0])
	require.Contains(t, r.Notes[1], "part worse failed: panic: worse")
}

func TestChosenParts(t *testing.T) {
	p := New("test")
	p.Part("one", "", nil)
	p.Part("two", "", nil)
	require.NoError(t, p.check())
	require.True(t, p.chosen("one"))
	require.NoError(t, p.Flags.Parse([]string{"-parts", "two"}))
	require.NoError(t, p.check())
	require.False(t, p.chosen("one"))
	require.True(t, p.chosen("two"))
	require.NoError(t, p.Flags.Parse([]string{"-parts", "three"}))
	require.ErrorContains(t, p.check(), `no part "three"`)
	require.NoError(t, p.Flags.Parse([]string{"-parts", "", "rest"}))
	require.ErrorContains(t, p.check(), `"rest"`)
}

func TestAlternate(t *testing.T) {
	var order string
	for round := range 3 {
		Alternate(round, func() { order += "a" }, func() { order += "b" })
	}
	require.Equal(t, "abbaab", order)
}

func TestProcess(t *testing.T) {
	used, err := CPU(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, used)
	memory, err := MemoryOf(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, memory.PSS, memory.Anon)
	require.Positive(t, memory.Anon)
	_, err = CPU(1 << 30)
	require.Error(t, err)
}
