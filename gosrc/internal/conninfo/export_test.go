package conninfo

// For the tests of package conninfo_test.
var (
	ParseString      = parseString
	RecoveryConninfo = recoveryConninfo
)
