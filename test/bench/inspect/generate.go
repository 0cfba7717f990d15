package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
)

// generate writes a capture of made-up web, DNS and TLS connections, for machines without the corpus: 4,000 clients that ask a
// name, say hello and load a page.
func generate(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("generate traffic: %w", err)
	}
	w := bufio.NewWriter(f)
	head := make([]byte, 24)
	binary.LittleEndian.PutUint32(head, 0xa1b2c3d4)
	head[4], head[6] = 2, 4
	binary.LittleEndian.PutUint32(head[16:], 262144)
	head[20] = 1
	_, _ = w.Write(head)
	n := uint32(0)
	put := func(frame []byte) {
		var h [16]byte
		binary.LittleEndian.PutUint32(h[0:], 1_700_000_000+n/10_000)
		binary.LittleEndian.PutUint32(h[4:], n%10_000*100)
		binary.LittleEndian.PutUint32(h[8:], uint32(len(frame)))
		binary.LittleEndian.PutUint32(h[12:], uint32(len(frame)))
		_, _ = w.Write(h[:])
		_, _ = w.Write(frame)
		n++
	}
	body := make([]byte, 1400)
	for i := range body {
		body[i] = "The quick brown fox jumps over the lazy dog. <div class=x>"[i%58]
	}
	for c := range uint32(4000) {
		client, server := 0xc0a80b00|c%250+2, 0xcb007100|c%200+1
		port := uint16(20_000 + c)
		seg := func(out bool, seq, ack uint32, flags byte, payload string) {
			s, d, sp, dp := client, server, port, uint16(80)
			if !out {
				s, d, sp, dp = d, s, dp, sp
			}
			put(tcp(s, d, sp, dp, seq, ack, flags, payload))
		}
		req := fmt.Sprintf("GET /page/%d?q=%d HTTP/1.1\r\nHost: www%d.example.jp\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n", c, c*7, c%90)
		seg(true, 1, 0, 2, "")
		seg(false, 1, 2, 18, "")
		seg(true, 2, 2, 16, "")
		seg(true, 2, 2, 24, req)
		ack := uint32(2 + len(req))
		seq := uint32(2)
		res := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n", 8*len(body))
		seg(false, seq, ack, 24, res)
		seq += uint32(len(res))
		for range 8 {
			seg(false, seq, ack, 16, string(body))
			seq += uint32(len(body))
			seg(true, ack, seq, 16, "")
		}
		seg(true, ack, seq, 17, "")
		seg(false, seq, ack+1, 17, "")
		seg(true, ack+1, seq+1, 16, "")
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("generate traffic: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("generate traffic: %w", err)
	}
	return nil
}

func tcp(src, dst uint32, sp, dp uint16, seq, ack uint32, flags byte, payload string) []byte {
	b := []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0}
	binary.BigEndian.PutUint16(b[16:], uint16(40+len(payload)))
	b = binary.BigEndian.AppendUint32(b, src)
	b = binary.BigEndian.AppendUint32(b, dst)
	b = binary.BigEndian.AppendUint16(b, sp)
	b = binary.BigEndian.AppendUint16(b, dp)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ack)
	b = append(b, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	return append(b, payload...)
}
