package failover

import "fmt"

// faults are known ones of minor releases that can harm slots, whatever replsync does; fixed is the first minor release of each
// major one, from 15 on, that has them no more.
var faults = []struct {
	fixed []int
	what  string
}{
	{[]int{13, 9, 5}, "advancing a slot may let go of catalog rows that it still needs"},
	{[]int{14, 10, 6}, "WAL that a slot needs may be removed after a crash"},
	{[]int{16, 12, 8, 2}, "WAL or catalog rows that a new slot needs may be removed while it is made"},
}

// releases is about the running minor releases.
func (c *check) releases() {
	c.release("this standby", c.Here.Recovery.ServerVersionNum)
	if c.There != nil {
		c.release("the primary", c.There.VersionNum)
	}
}

func (c *check) release(server string, version int) {
	major, minor := version/10000, version%10000
	newest, text := 0, ""
	for _, f := range faults {
		if i := major - 15; i >= 0 && i < len(f.fixed) && minor < f.fixed[i] {
			newest = max(newest, f.fixed[i])
			if text != "" {
				text += "; "
			}
			text += f.what
		}
	}
	if newest == 0 {
		c.holds(checkRelease, server, "It is %d.%d, without a fault that is known to harm slots.", major, minor)
		return
	}
	c.advise(checkRelease, server, fmt.Sprintf("Update to %d.%d or later.", major, newest),
		"It is %d.%d, of which is known: %s.", major, minor, text)
}
