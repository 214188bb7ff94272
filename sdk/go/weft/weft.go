// SPDX-License-Identifier: Apache-2.0

//go:build wasip1

// Package weft is the Go interface of a weft guest. A guest calls Handle in an init function and is built with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o guest.wasm .
//
// The Go runtime starts up in each instance, which takes about a millisecond: declare such functions
// `state: keep`, and their memory lives on from call to call.
package weft

import (
	"fmt"
	"runtime"
	"unsafe"
)

// Status is a gRPC status code; zero is success.
type Status uint32

const (
	OK       Status = 0
	Internal Status = 13

	pending Status = 256
	short   Status = 257
)

// Error is a call that failed: its status and the message of whoever failed it.
type Error struct {
	Status  Status
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Message) }

// Handler answers one request. The request's bytes are valid until it returns. An *Error sets status and
// message; any other error is INTERNAL.
type Handler func(fn uint32, request []byte) ([]byte, error)

var handler Handler

// Handle sets the handler of this module. Call it from an init function.
func Handle(h Handler) { handler = h }

//go:wasmimport weft reply
func importReply(data unsafe.Pointer, size uint32) uint32

//go:wasmimport weft call
func importCall(name unsafe.Pointer, nameSize uint32, data unsafe.Pointer, size uint32, room unsafe.Pointer, roomSize uint32, timeoutNs int64) uint64

//go:wasmimport weft wait
func importWait(handle uint32) uint64

//go:wasmimport weft result
func importResult(handle uint32, room unsafe.Pointer, roomSize uint32) uint64

//go:wasmimport weft send
func importSend(name unsafe.Pointer, nameSize uint32, data unsafe.Pointer, size uint32) uint32

//go:wasmimport weft deadline
func importDeadline() int64

//go:wasmimport weft log
func importLog(level uint32, text unsafe.Pointer, size uint32)

// inbox and outbox are reachable from here, so the collector leaves them alone between calls.
var inbox, outbox []byte

func pointer(bytes []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(bytes)) }

//go:wasmexport weft_alloc
func alloc(size uint32) unsafe.Pointer {
	if int(size) > cap(inbox) || inbox == nil {
		inbox = make([]byte, max(size, 4096))
	}
	return pointer(inbox[:1])
}

//go:wasmexport weft_handle
func handle(fn uint32, data unsafe.Pointer, size uint32) uint32 {
	if handler == nil {
		return uint32(Internal)
	}
	answer, err := handler(fn, inbox[:size])
	status := OK
	if err != nil {
		status = Internal
		answer = []byte(err.Error())
		if e, ok := err.(*Error); ok {
			status, answer = e.Status, []byte(e.Message)
		}
	}
	outbox = answer
	if len(outbox) > 0 {
		importReply(pointer(outbox), uint32(len(outbox)))
	}
	return uint32(status)
}

// Call calls function name ("namespace/name") and waits for its answer.
func Call(name string, request []byte) ([]byte, error) {
	text := []byte(name)
	room := make([]byte, 4096)
	packed := importCall(pointer(text), uint32(len(text)), pointer(request), uint32(len(request)), pointer(room), uint32(len(room)), 0)
	if Status(packed>>32) == pending {
		packed = importWait(uint32(packed))
	}
	if Status(packed>>32) == short {
		call := uint32(packed)
		packed = importResult(call, nil, 0) // How large is it?
		room = make([]byte, uint32(packed))
		packed = importResult(call, pointer(room), uint32(len(room)))
	}
	runtime.KeepAlive(text)
	runtime.KeepAlive(request)
	answer := room[:uint32(packed)]
	if status := Status(packed >> 32); status != OK {
		return nil, &Error{status, string(answer)}
	}
	return answer, nil
}

// Send sends a message that has no answer.
func Send(name string, message []byte) Status {
	text := []byte(name)
	return Status(importSend(pointer(text), uint32(len(text)), pointer(message), uint32(len(message))))
}

// DeadlineNs returns the nanoseconds left to the call being handled.
func DeadlineNs() int64 { return importDeadline() }

// Log writes a line to the host's log: level 0 debug, 1 information, 2 warning, 3 error.
func Log(level uint32, text string) {
	bytes := []byte(text)
	if len(bytes) > 0 {
		importLog(level, pointer(bytes), uint32(len(bytes)))
	}
}
