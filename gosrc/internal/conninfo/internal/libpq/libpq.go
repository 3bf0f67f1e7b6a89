//go:build libpq

// Package libpq asks the real libpq, for tests only. It is apart from them because tests cannot use cgo, and behind a
// build tag because nothing else here needs libpq.
package libpq

/*
#cgo CFLAGS: -I/usr/include/postgresql
#cgo LDFLAGS: -lpq
#include <stdlib.h>
#include <libpq-fe.h>

static PQconninfoOption *option(PQconninfoOption *options, int i) { return options + i; }
*/
import "C"

import (
	"errors"
	"unsafe"
)

// Parse returns what PQconninfoParse makes of a connection string.
func Parse(s string) (map[string]string, error) {
	text := C.CString(s)
	defer C.free(unsafe.Pointer(text))
	var message *C.char
	options := C.PQconninfoParse(text, &message)
	if options == nil {
		defer C.PQfreemem(unsafe.Pointer(message))
		return nil, errors.New(C.GoString(message))
	}
	defer C.PQconninfoFree(options)
	values := make(map[string]string)
	for i := C.int(0); C.option(options, i).keyword != nil; i++ {
		if o := C.option(options, i); o.val != nil {
			values[C.GoString(o.keyword)] = C.GoString(o.val)
		}
	}
	return values, nil
}
