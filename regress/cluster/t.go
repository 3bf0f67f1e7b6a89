package cluster

// T is what this package needs of a testing.TB. A program that is not a test
// (the demo) can supply its own.
type T interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	// Fatalf must not return.
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}
