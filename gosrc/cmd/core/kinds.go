package main

// kinds returns the work that this core can do.
func kinds() map[string]work {
	k := map[string]work{}
	addSelftest(k)
	return k
}
