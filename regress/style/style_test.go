// Package style checks what no linter that the project uses can be told.
package style

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A panic in a goroutine that recovers nothing ends the process, which is a
// crash restart of the whole server. So safego alone starts them.
func TestGoroutinesAreStartedBySafego(t *testing.T) {
	files := 0
	err := filepath.WalkDir("../../gosrc", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
			strings.Contains(path, "/internal/safego/") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		files++
		ast.Inspect(file, func(node ast.Node) bool {
			if statement, ok := node.(*ast.GoStmt); ok {
				t.Errorf("%v: go statement outside of safego", set.Position(statement.Pos()))
			}
			return true
		})
		return nil
	})
	require.NoError(t, err)
	require.NotZero(t, files)
}
