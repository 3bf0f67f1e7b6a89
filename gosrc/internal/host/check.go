package host

// CheckRow is a row of failover_check().
type CheckRow struct {
	Name, Object string
	OK           *bool // nil: it cannot be known
	Detail, Hint string
}
