package regress_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/replsync/replsync/regress/cluster"
)

// TestHoldBackQuorum checks the two forms of the list, and that a reload is enough to change it.
func TestHoldBackQuorum(t *testing.T) {
	heldBack(t, func(t *testing.T, major int) {
		p := newHeldPair(t, major)
		second := p.primary.Standby(t, cluster.Slot("sb2"), cluster.Name("sb2"))
		p.primary.Set(t, holdBack, "ANY 1 (sb, sb2)")
		held := read(t, p.primary, "held")
		p.standby.Stop(t, cluster.Fast)
		waitInactive(t, p.primary, "sb")
		p.primary.Exec(t, "insert into t values (1)")
		held.WaitValues(t, "public.t", "id", "1")
		require.Zero(t, trouble(p.primary, "sb", ""))

		p.primary.Set(t, holdBack, "sb, sb2")
		p.primary.Exec(t, "insert into t values (2)")
		requireHeld(t, p, held, "sb", "1")
		require.Equal(t, 1, trouble(p.primary, "sb", "does not have active_pid"))
		p.primary.Set(t, holdBack, "any 1 ( sb ,sb2 )")
		held.WaitValues(t, "public.t", "id", "1", "2")

		second.Stop(t, cluster.Fast)
		waitInactive(t, p.primary, "sb2")
		p.primary.Exec(t, "insert into t values (3)")
		requireHeld(t, p, held, "sb2", "1", "2")
		second.Start(t)
		held.WaitValues(t, "public.t", "id", "1", "2", "3")

		// What replsync.slots names changes in the same way.
		p.primary.Set(t, holdBack, "sb")
		p.primary.Exec(t, "insert into t values (4)")
		requireHeld(t, p, held, "sb", "1", "2", "3")
		p.primary.Set(t, "replsync.slots", "other*")
		held.WaitValues(t, "public.t", "id", "1", "2", "3", "4")
	})
}

func TestHoldBackParameter(t *testing.T) {
	onEachVersion(t, func(t *testing.T, major int) {
		primary := newPrimary(t, major)
		set := func(value string) error {
			_, err := primary.TryExec(background(t), "alter system set "+holdBack+" = "+cluster.QuoteLiteral(value))
			return err
		}
		require.NoError(t, set(""))
		require.NoError(t, set("  "))
		if major >= firstFailover {
			hint := requireError(t, set("sb"), "22023", "invalid value for parameter")
			require.Contains(t, hint, `Set "synchronized_standby_slots" instead`)
			return
		}
		for _, value := range []string{
			"sb", " a ,b", `"a", b`, "any", "any, first", "ANY 1 (a)", "any 2 (a,b)", "Any  3( any , b , c ) ", "ANY 1 (any)",
			strings.Repeat("a", 63),
		} {
			require.NoError(t, set(value), value)
		}
		for value, hint := range map[string]string{
			"a,":                           "Give a comma-separated list",
			",":                            "Give a comma-separated list",
			"Upper":                        "Give a comma-separated list",
			"a b":                          "Give a comma-separated list",
			"*":                            "Give a comma-separated list",
			"a, a":                         "Name each slot once",
			"FIRST 1 (a)":                  "Give a comma-separated list",
			"ANY (a)":                      "Give a comma-separated list",
			"ANY x (a)":                    "Give a comma-separated list",
			"ANY 1 a":                      "Give a comma-separated list",
			"ANY 1 (a":                     "Give a comma-separated list",
			"ANY 1 (a) b":                  "Give a comma-separated list",
			"ANY 1 ()":                     "Give a comma-separated list",
			"ANY 2 (a, b, a)":              "Name each slot once",
			"ANY 0 (a)":                    "Leave the parameter empty",
			"ANY -1 (a)":                   "Leave the parameter empty",
			"ANY 3 (a, b)":                 "Give a number from 1 to 2",
			"ANY 99999999999999999999 (a)": "Give a comma-separated list",
			strings.Repeat("a", 64):        "Give a comma-separated list",
		} {
			require.Contains(t, requireError(t, set(value), "22023", "invalid value for parameter"), hint, value)
		}
		require.Equal(t, []string{strings.Repeat("a", 63)}, slices.Compact(cluster.Query[string](t, primary,
			"select setting from pg_file_settings where name = $1", holdBack)))
	})
}
