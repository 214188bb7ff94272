// SPDX-License-Identifier: Apache-2.0

// A Go guest: counts its calls, calls another function, sleeps. Test of sdk/go and dataplane/host.
package main

import (
	"bytes"
	"fmt"
	"runtime"
	"time"

	weft "weft/guest"
)

var calls int

func init() {
	weft.Handle(func(fn uint32, request []byte) ([]byte, error) {
		calls++
		switch {
		case bytes.HasPrefix(request, []byte("call ")):
			return weft.Call("demo/other", request[5:])
		case bytes.Equal(request, []byte("sleep")):
			time.Sleep(5 * time.Millisecond)
			return []byte("slept"), nil
		case bytes.Equal(request, []byte("collect")):
			garbage := 0
			for i := 0; i < 1000; i++ {
				garbage += len(make([]byte, 10_000))
			}
			runtime.GC()
			return []byte(fmt.Sprint(garbage)), nil
		case bytes.Equal(request, []byte("panic")):
			panic("as told")
		case bytes.Equal(request, []byte("fail")):
			return nil, &weft.Error{Status: 5, Message: "no such thing"}
		}
		return []byte(fmt.Sprintf("call %d: %s", calls, bytes.ToUpper(request))), nil
	})
}

func main() {}
