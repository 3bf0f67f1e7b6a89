package publisher

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/replsync/replsync/gosrc/internal/host"
	"github.com/replsync/replsync/gosrc/internal/remote"
)

// SQLSTATEs of a publisher that are acted on.
const (
	codeNoPrivilege  = "42501"
	codeNoTable      = "42P01"
	codeNoSchema     = "3F000"
	codeNotASequence = "42809"
	codeLockTimeout  = "55P03"

	codeTooManyConnections = "53300"
)

func errTooOld(major int) error {
	e := host.Errorf("0A000", "cannot synchronize sequences from a publisher of version %d", major)
	e.Hint = fmt.Sprintf("The publisher must be of version %d or later.", oldestMajor)
	return e
}

// ofOne returns the error of the server that one sequence of a batch may be the cause of, as opposed to what would befall
// any statement: no resources (53), a cancellation or a shutdown (57), a broken connection (08).
func ofOne(err error) *pgconn.PgError {
	refused := remote.Refusal(err)
	for _, class := range []string{"08", "53", "57"} {
		if refused == nil || strings.HasPrefix(refused.Code, class) {
			return nil
		}
	}
	return refused
}
