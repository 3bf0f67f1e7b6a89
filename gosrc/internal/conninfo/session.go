package conninfo

import (
	"strconv"
	"strings"
)

// runtimeParams returns what the start-up packet sets. The server reads options first and these afterwards
// (process_startup_options), both above any setting of the role or the database, so these win.
func runtimeParams(s settings, opts Options) map[string]string {
	params := map[string]string{
		// pgx speaks nothing else, and quoting relies on the second.
		"client_encoding":             "UTF8",
		"standard_conforming_strings": "on",

		// Nobody's function or operator may come before the system's, nor a temporary table.
		"search_path": "pg_catalog, pg_temp",

		// What core's own subscriber asks for (libpqrcv_connect), so that text reads the same everywhere.
		"datestyle":     "ISO",
		"intervalstyle": "postgres",
		"timezone":      "UTC",

		// A standby has no serializable transactions, a role may have them as its default.
		"default_transaction_isolation": "read committed",
	}
	// How long things may last is the user's to say.
	asked := optionNames(s["options"])
	for name, value := range timeouts(opts) {
		if !asked[name] {
			params[name] = value
		}
	}
	if s["options"] != "" {
		params["options"] = s["options"]
	}
	params["application_name"] = firstOf(s["application_name"], s["fallback_application_name"], opts.ApplicationName)
	if params["application_name"] == "" {
		delete(params, "application_name")
	}
	return params
}

// timeouts returns the session's time limits. Of those that a role or the server may have for users' sessions, the limit
// on an idle one would end the connection between two cycles, and the one on locks adds nothing to ours on statements.
func timeouts(opts Options) map[string]string {
	params := map[string]string{"lock_timeout": "0"}
	if !opts.OldServer {
		params["idle_session_timeout"] = "0"
	}
	if opts.StatementTimeout > 0 {
		ms := strconv.FormatInt(max(1, opts.StatementTimeout.Milliseconds()), 10)
		params["statement_timeout"] = ms
		// A transaction that nobody goes on with holds back vacuum on the other server.
		params["idle_in_transaction_session_timeout"] = ms
	}
	return params
}

// optionNames returns the run-time parameters that an "options" value sets, read as the server does (postinit.c:
// process_startup_options, postgres.c: process_postgres_switches).
func optionNames(options string) map[string]bool {
	names := make(map[string]bool)
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		var setting string
		switch word := words[i]; {
		case word == "-c" && i+1 < len(words):
			i++
			setting = words[i]
		case strings.HasPrefix(word, "--"), strings.HasPrefix(word, "-c"):
			setting = word[2:]
		}
		name, _, ok := strings.Cut(setting, "=")
		if ok {
			names[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = true
		}
	}
	return names
}

// splitOptions follows postinit.c: pg_split_opts.
func splitOptions(s string) []string {
	var words []string
	for i := skipSpace(s, 0); i < len(s); i = skipSpace(s, i) {
		var word strings.Builder
		for ; i < len(s) && !isSpace(s[i]); i++ {
			if s[i] == '\\' && i+1 < len(s) {
				i++
			}
			word.WriteByte(s[i])
		}
		words = append(words, word.String())
	}
	return words
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
