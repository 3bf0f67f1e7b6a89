// Command core is the Go part of replsync, built as a C archive and linked into
// replsync_core.so, which a background worker opens after the fork.
//
// This file holds the trampolines that C calls. They run on the server's main thread with all signals
// blocked, so each returns within microseconds and none waits. A panic must not leave them: it would end the server.
package main

/*
#cgo CFLAGS: -I${SRCDIR}/../../../ext
#include <stdlib.h>
#include "core_api.h"
*/
import "C"

import (
	"bytes"
	"unsafe"

	"github.com/replsync/replsync/gosrc/internal/host"
)

func main() {}

//export coreStart
func coreStart(kind, argument *C.char, wakeupFD C.int, memoryLimit C.int64_t) (rc C.int) {
	defer func() {
		if recover() != nil {
			rc = -1
		}
	}()
	if !run(C.GoString(kind), C.GoString(argument), int(wakeupFD), int64(memoryLimit)) {
		return -1
	}
	return 0
}

//export coreNext
func coreNext(request *C.CoreRequest) (found C.int) {
	defer func() { _ = recover() }()
	r, ok := requests.Next()
	if !ok {
		return 0
	}
	request.id = C.uint64_t(r.ID)
	request.kind = C.int32_t(r.Kind)
	request.data = nil
	request.len = C.uint64_t(len(r.Data))
	if len(r.Data) > 0 {
		request.data = C.CBytes(r.Data)
	}
	return 1
}

//export coreAnswer
func coreAnswer(id C.uint64_t, e *C.CoreError, data unsafe.Pointer, length C.uint64_t) {
	defer func() { _ = recover() }()
	var err error
	if e != nil {
		err = &host.Error{Message: host.Message{
			SQLState: C.GoString(&e.sqlstate[0]),
			Text:     C.GoString(e.message),
			Detail:   C.GoString(e.detail),
			Hint:     C.GoString(e.hint),
		}}
	}
	requests.Answer(uint64(id), takeAnswer(data, int(length)), err)
}

// takeAnswer copies an answer. The list of slots is a large one and most often what it was: then it is the same one again.
func takeAnswer(data unsafe.Pointer, length int) []byte {
	if length == 0 {
		return nil
	}
	sent := unsafe.Slice((*byte)(data), length)
	if last := listed.Load(); last != nil && bytes.Equal(sent, last.sent) {
		return last.sent
	}
	return bytes.Clone(sent)
}

//export coreCancel
func coreCancel() {
	defer func() { _ = recover() }()
	requests.Cancel()
}
