package cluster

import (
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"
)

// An LSN is a WAL position. It can be scanned from and given to a query as
// pg_lsn.
type LSN uint64

// ParseLSN parses the form that PostgreSQL prints.
func ParseLSN(text string) (LSN, error) {
	hi, lo, ok := strings.Cut(text, "/")
	h, errHi := strconv.ParseUint(hi, 16, 32)
	l, errLo := strconv.ParseUint(lo, 16, 32)
	if !ok || errHi != nil || errLo != nil {
		return 0, fmt.Errorf("%q is not an LSN", text)
	}
	return LSN(h<<32 | l), nil
}

// String is the form that PostgreSQL prints.
func (lsn LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(lsn>>32), uint32(lsn))
}

// Scan implements sql.Scanner, which pgx uses for a type it does not know.
func (lsn *LSN) Scan(src any) error {
	switch src := src.(type) {
	case string:
		parsed, err := ParseLSN(src)
		*lsn = parsed
		return err
	case nil:
		return fmt.Errorf("the position is NULL")
	default:
		return fmt.Errorf("a position cannot be made of %T", src)
	}
}

// Value implements driver.Valuer.
func (lsn LSN) Value() (driver.Value, error) { return lsn.String(), nil }
