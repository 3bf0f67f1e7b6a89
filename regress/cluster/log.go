package cluster

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
)

func (s *Server) logPath() string { return filepath.Join(s.dir, "log") }

// Log is everything that the server has logged.
func (s *Server) Log() string { return s.LogSince(0) }

// A LogMark is a position in a server's log.
type LogMark int64

// LogMark is the end of the log as it is now.
func (s *Server) LogMark() LogMark {
	info, err := os.Stat(s.logPath())
	if err != nil {
		return 0
	}
	return LogMark(info.Size())
}

// LogSince is what the server has logged since the mark.
func (s *Server) LogSince(mark LogMark) string {
	f, err := os.Open(s.logPath())
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(int64(mark), io.SeekStart); err != nil {
		return ""
	}
	text, _ := io.ReadAll(f)
	return string(text)
}

// WaitLog waits until a line logged since the mark matches the regular
// expression, and returns the match.
func (s *Server) WaitLog(t T, mark LogMark, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var match string
	Eventually(t, DefaultDeadline, fmt.Sprintf("the log of %s to match %q", s.Name, pattern), func() error {
		text := s.LogSince(mark)
		if match = re.FindString(text); match == "" {
			return fmt.Errorf("it ends with\n%s", tail(text, 10))
		}
		return nil
	})
	return match
}
