package sequence

import (
	"math"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/gosrc/internal/host"
)

func ascending() host.SequenceDefinition {
	return host.SequenceDefinition{Type: int8OID, Start: 1, Increment: 1, Min: 1, Max: math.MaxInt64}
}

func at(v int64, called bool) host.SequencePosition {
	return host.SequencePosition{LastValue: v, IsCalled: called}
}

func TestDecide(t *testing.T) {
	up, down, cycling := ascending(), ascending(), ascending()
	down.Increment, down.Min, down.Max = -1, math.MinInt64, -1
	cycling.Cycle = true
	for name, c := range map[string]struct {
		def              host.SequenceDefinition
		local, publisher host.SequencePosition
		margin           int64
		backwards        bool
		want             Decision
	}{
		"equal":                     {up, at(5, true), at(5, true), 0, false, Decision{Action: Unchanged, To: at(5, true)}},
		"behind":                    {up, at(5, true), at(7, true), 0, false, Decision{Action: Set, To: at(7, true)}},
		"ahead":                     {up, at(8, true), at(7, true), 0, false, Decision{Action: Keep, To: at(7, true)}},
		"ahead, allowed":            {up, at(8, true), at(7, true), 0, true, Decision{Action: Set, To: at(7, true), Backwards: true}},
		"not called here":           {up, at(7, false), at(7, true), 0, false, Decision{Action: Set, To: at(7, true)}},
		"not called there":          {up, at(7, true), at(7, false), 0, false, Decision{Action: Keep, To: at(7, false)}},
		"copied uncalled":           {up, at(1, false), at(7, false), 0, false, Decision{Action: Set, To: at(7, false)}},
		"descending, behind":        {down, at(-5, true), at(-7, true), 0, false, Decision{Action: Set, To: at(-7, true)}},
		"descending, ahead":         {down, at(-9, true), at(-7, true), 0, false, Decision{Action: Keep, To: at(-7, true)}},
		"cycling":                   {cycling, at(9, true), at(2, true), 5, false, Decision{Action: Set, To: at(2, true), Backwards: true}},
		"cycling, equal":            {cycling, at(2, true), at(2, true), 5, false, Decision{Action: Unchanged, To: at(2, true)}},
		"margin":                    {up, at(7, true), at(7, true), 5, false, Decision{Action: Set, To: at(12, true)}},
		"margin, inside it":         {up, at(10, true), at(7, true), 5, false, Decision{Action: Set, To: at(12, true)}},
		"margin, there":             {up, at(12, true), at(7, true), 5, false, Decision{Action: Unchanged, To: at(12, true)}},
		"margin, beyond":            {up, at(13, true), at(7, true), 5, false, Decision{Action: Keep, To: at(12, true)}},
		"margin, descending":        {down, at(-1, false), at(-7, true), 5, false, Decision{Action: Set, To: at(-12, true)}},
		"margin of one not called":  {up, at(1, false), at(1, false), 5, false, Decision{Action: Set, To: at(6, false)}},
		"margin, clamped":           {up, at(1, false), at(math.MaxInt64-3, true), 5, false, Decision{Action: Set, To: at(math.MaxInt64-1, true), Clamped: true}},
		"margin, nothing left":      {up, at(1, false), at(math.MaxInt64, true), 5, false, Decision{Action: Set, To: at(math.MaxInt64, true), Clamped: true}},
		"negative margin is none":   {up, at(1, false), at(7, true), -5, false, Decision{Action: Set, To: at(7, true)}},
		"backwards keeps the equal": {up, at(7, true), at(7, true), 0, true, Decision{Action: Unchanged, To: at(7, true)}},
	} {
		require.Equal(t, c.want, Decide(c.def, c.local, c.publisher, c.margin, c.backwards), name)
	}
}

// FuzzTarget checks the arithmetic against one that cannot overflow.
func FuzzTarget(f *testing.F) {
	f.Add(int64(1), int64(1), int64(math.MaxInt64), int64(1), true, int64(10))
	f.Add(int64(math.MinInt64), int64(math.MinInt64), int64(math.MaxInt64), int64(math.MaxInt64), true, int64(math.MaxInt64))
	f.Add(int64(math.MaxInt64), int64(math.MinInt64), int64(math.MaxInt64), int64(math.MinInt64), false, int64(math.MaxInt64))
	f.Add(int64(3), int64(math.MinInt16), int64(math.MaxInt16), int64(32766), true, int64(1000))
	f.Add(int64(-3), int64(math.MinInt32), int64(-1), int64(-2), false, int64(1<<40))
	f.Add(int64(math.MinInt64), int64(0), int64(5), int64(5), true, int64(1))
	f.Fuzz(func(t *testing.T, increment, least, greatest, value int64, called bool, margin int64) {
		if increment == 0 || least > greatest || value < least || value > greatest {
			t.Skip()
		}
		def := host.SequenceDefinition{Increment: increment, Min: least, Max: greatest}
		publisher := at(value, called)
		to, clamped := Target(def, publisher, margin)

		require.GreaterOrEqual(t, to.LastValue, least)
		require.LessOrEqual(t, to.LastValue, greatest)
		require.GreaterOrEqual(t, Compare(increment, to, publisher), 0, "behind the publisher")
		require.Equal(t, called, to.IsCalled)
		next := func(p host.SequencePosition, steps int64) *big.Int {
			n := new(big.Int).Mul(big.NewInt(increment), big.NewInt(steps))
			return n.Add(n, big.NewInt(p.LastValue))
		}
		inside := func(n *big.Int) bool {
			return n.Cmp(big.NewInt(least)) >= 0 && n.Cmp(big.NewInt(greatest)) <= 0
		}
		asked := next(publisher, max(margin, 0))
		require.Equal(t, clamped, asked.Cmp(big.NewInt(to.LastValue)) != 0)
		if to != publisher && called {
			require.True(t, inside(next(to, 1)), "no value is left")
		}
		if clamped && called {
			// As far as possible: one step more leaves none.
			require.False(t, inside(next(to, 2)) && inside(next(to, 1)))
		}
		if clamped && !called {
			require.False(t, inside(next(to, 1)))
		}
		// What was set once is not set again.
		d := Decide(def, to, publisher, margin, false)
		require.Equal(t, Unchanged, d.Action)
	})
}

// FuzzDecide checks that a sequence goes back only where it may.
func FuzzDecide(f *testing.F) {
	f.Add(int64(1), int64(5), true, int64(7), false, int64(0), false, false)
	f.Add(int64(math.MinInt64), int64(math.MaxInt64), true, int64(math.MinInt64), false, int64(3), false, true)
	f.Fuzz(func(t *testing.T, increment, here int64, hereCalled bool, there int64, thereCalled bool, margin int64, cycle, backwards bool) {
		if increment == 0 {
			t.Skip()
		}
		def := host.SequenceDefinition{Increment: increment, Min: math.MinInt64, Max: math.MaxInt64, Cycle: cycle}
		local, publisher := at(here, hereCalled), at(there, thereCalled)
		d := Decide(def, local, publisher, margin, backwards)
		switch d.Action {
		case Set:
			require.NotEqual(t, local, d.To)
			if !cycle && !backwards {
				require.Positive(t, Compare(increment, d.To, local))
				require.False(t, d.Backwards)
			}
		case Keep:
			require.False(t, cycle || backwards)
			require.Positive(t, Compare(increment, local, publisher))
		case Unchanged:
			require.Equal(t, local, d.To)
		}
		if !cycle && d.Action != Keep {
			require.GreaterOrEqual(t, Compare(increment, d.To, publisher), 0)
		}
		require.Equal(t, Compare(increment, local, publisher), -Compare(increment, publisher, local))
	})
}

func TestDifferences(t *testing.T) {
	publisher, local := ascending(), ascending()
	require.Empty(t, Differences(publisher, local))
	require.Empty(t, Detail(nil))
	local = host.SequenceDefinition{Type: int2OID, Start: 2, Increment: -1, Min: 3, Max: 4, Cycle: true}
	found := Differences(publisher, local)
	require.Equal(t, "AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 NO CYCLE", Clauses(found))
	require.Equal(t, "Type is bigint on the publisher and smallint here, increment is 1 on the publisher and -1 here, "+
		"minimum is 1 on the publisher and 3 here, maximum is 9223372036854775807 on the publisher and 4 here, "+
		"start is 1 on the publisher and 2 here, cycle is off on the publisher and on here.", Detail(found))
	local = ascending()
	local.Type = int4OID
	require.Equal(t, "Type is bigint on the publisher and integer here.", Detail(Differences(publisher, local)))
	local.Type = 99
	require.Contains(t, Detail(Differences(publisher, local)), "type 99")
}
