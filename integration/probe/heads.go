// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// headsKept is how long the connections of heads stay open.
	headsKept = 5 * time.Second
	// headsStreams is the number of requests on each connection.
	headsStreams = 127
)

// heads opens n HTTP/2 connections to host. On each it sends requests with heads of 15 KiB,
// which are a few bytes on the wire, and does not read the responses. It prints how many
// connections it opened.
func heads(n int, host string) {
	var opened atomic.Int64
	var wait sync.WaitGroup
	for range n {
		wait.Go(func() {
			c, err := tls.Dial("tcp", host+":443", &tls.Config{ServerName: host, NextProtos: []string{"h2"}, InsecureSkipVerify: true})
			if err != nil {
				return
			}
			defer c.Close()
			opened.Add(1)
			end := time.Now().Add(headsKept)
			_ = c.SetDeadline(end)
			_, _ = io.WriteString(c, http2.ClientPreface)
			fr := http2.NewFramer(c, nil)
			err = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			for i := 0; i < headsStreams && err == nil; i++ {
				block.Reset()
				for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", host}, {":path", "/heads"}} {
					_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
				}
				for range 4 { // the values are joined
					_ = enc.WriteField(hpack.HeaderField{Name: "cookie", Value: strings.Repeat("a", 3900)})
				}
				err = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
			}
			time.Sleep(time.Until(end))
		})
	}
	wait.Wait()
	report(strconv.FormatInt(opened.Load(), 10), nil)
}
