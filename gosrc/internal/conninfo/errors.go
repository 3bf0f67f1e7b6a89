package conninfo

import "fmt"

// SQLSTATE codes of the errors that do not come from a server.
const (
	codeSyntax           = "42601" // syntax_error, as core's libpqrcv_check_conninfo
	codeInvalidValue     = "22023" // invalid_parameter_value
	codeUnsupported      = "0A000" // feature_not_supported
	codeConfigFile       = "F0000" // config_file_error
	codeCannotConnect    = "08001" // sqlclient_unable_to_establish_sqlconnection
	codeQueryCanceled    = "57014" // query_canceled
	codeInternal         = "XX000" // internal_error
	codeInvalidPassword  = "28P01"
	codePasswordRequired = "2F003" // prohibited_sql_statement_attempted, as core's libpqrcv_connect
	codeNoSuchDatabase   = "3D000"
	codeNoPrivilege      = "42501"
	codeCannotConnectNow = "57P03"
)

// Error is every error that this package returns. Its parts are what ereport wants: Message starts in lower case and has
// no full stop, Detail and Hint are sentences.
type Error struct {
	Code    string // SQLSTATE
	Message string
	Detail  string
	Hint    string

	err error
}

// Error returns the message and, after a colon, the detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Message
	}
	return e.Message + ": " + e.Detail
}

// Unwrap returns the cause: for a failed connection all attempts' errors joined, among them any [pgconn.PgError].
func (e *Error) Unwrap() error { return e.err }

// SQLState returns the SQLSTATE, as [pgconn.PgError] does.
func (e *Error) SQLState() string { return e.Code }

func newError(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) withDetail(format string, args ...any) *Error {
	e.Detail = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) withHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) withCause(err error) *Error {
	e.err = err
	return e
}

// errInvalidValue does not quote the value: in a malformed string it can be the rest of a password.
func errInvalidValue(key string) *Error {
	return newError(codeInvalidValue, "invalid value for connection option \"%s\"", key)
}
