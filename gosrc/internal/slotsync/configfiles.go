package slotsync

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxConfigDepth is CONF_FILE_MAX_DEPTH (utils/conffiles.h).
const maxConfigDepth = 10

// configPending tells whether the configuration files may hold edits that the server has not been told to read. What
// cannot be known counts as an edit.
func configPending(configFile, dataDirectory string, reloaded time.Time) bool {
	if configFile == "" || dataDirectory == "" || reloaded.IsZero() {
		return true
	}
	if fileEdited(configFile, reloaded, 0) {
		return true
	}
	auto := filepath.Join(dataDirectory, "postgresql.auto.conf")
	if _, err := os.Stat(auto); os.IsNotExist(err) {
		return false
	}
	return fileEdited(auto, reloaded, 0)
}

// fileEdited looks at a file and at what it includes, by the rules of ParseConfigFp (guc-file.l).
func fileEdited(path string, reloaded time.Time, depth int) bool {
	if depth > maxConfigDepth || newer(path, reloaded) {
		return true
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(content)) {
		word, argument, ok := includeLine(line)
		if !ok {
			continue
		}
		if !filepath.IsAbs(argument) {
			argument = filepath.Join(filepath.Dir(path), argument)
		}
		if includeEdited(word, argument, reloaded, depth+1) {
			return true
		}
	}
	return false
}

func includeEdited(word, path string, reloaded time.Time, depth int) bool {
	switch word {
	case "include_if_exists":
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return false
		}
	case "include_dir":
		if newer(path, reloaded) { // a file was added or removed
			return true
		}
		files, err := filepath.Glob(filepath.Join(path, "*.conf"))
		if err != nil {
			return true
		}
		for _, file := range files {
			if !strings.HasPrefix(filepath.Base(file), ".") && fileEdited(file, reloaded, depth) {
				return true
			}
		}
		return false
	}
	return fileEdited(path, reloaded, depth)
}

func newer(path string, than time.Time) bool {
	info, err := os.Stat(path)
	return err != nil || info.ModTime().After(than)
}

// includeLine reads a line like include 'file', include_dir = 'directory'.
func includeLine(line string) (word, argument string, ok bool) {
	line = strings.TrimSpace(line)
	end := strings.IndexAny(line, " \t='")
	if end < 0 {
		return "", "", false
	}
	word = strings.ToLower(line[:end])
	if word != "include" && word != "include_if_exists" && word != "include_dir" {
		return "", "", false
	}
	rest := strings.TrimSpace(line[end:])
	rest = strings.TrimSpace(strings.TrimPrefix(rest, "="))
	if quoted, found := strings.CutPrefix(rest, "'"); found {
		return word, unquote(quoted), true
	}
	if i := strings.IndexAny(rest, " \t#"); i >= 0 {
		rest = rest[:i]
	}
	return word, rest, rest != ""
}

// unquote reads a string up to the closing quote; a quote in it is doubled or has a backslash in front.
func unquote(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\'' && i+1 < len(s) && s[i+1] == '\'', s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '\'':
			return b.String()
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
