// Package style checks what no linter that the project uses can be told.
package style

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
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

// The tests that CONTRIBUTING.md names for the hazards are there.
func TestHazardsNameTests(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{"../../gosrc", ".."} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			code.Write(content)
			return err
		})
		require.NoError(t, err)
	}
	text, err := os.ReadFile("../../CONTRIBUTING.md")
	require.NoError(t, err)
	named := regexp.MustCompile("`(Test[A-Z][A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, named)
	for _, name := range named {
		require.True(t, strings.Contains(code.String(), "func "+name[1]+"(t *testing.T)"), name[1])
	}
}
