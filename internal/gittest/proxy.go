package gittest

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
)

// Proxy is a proxy on loopback that counts what goes through it.
type Proxy struct {
	URL string // http://host:port or socks5://host:port

	user, password string
	count          atomic.Int64
}

// Count returns how many connections or requests the proxy passed on.
func (p *Proxy) Count() int { return int(p.count.Load()) }

// NewHTTPProxy starts a proxy that takes CONNECT and plain requests, with basic
// authentication unless user is "".
func NewHTTPProxy(t testing.TB, user, password string) *Proxy {
	return newProxy(t, "http://", user, password, (*Proxy).http)
}

// NewSOCKS starts a SOCKS5 proxy, with user and password unless user is "".
func NewSOCKS(t testing.TB, user, password string) *Proxy {
	return newProxy(t, "socks5://", user, password, (*Proxy).socks)
}

func newProxy(t testing.TB, scheme, user, password string, handle func(*Proxy, net.Conn) error) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{URL: scheme + l.Addr().String(), user: user, password: password}
	serve(t, l, func(c net.Conn) { handle(p, c) })
	return p
}

func (p *Proxy) http(c net.Conn) error {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.password))
	if got := req.Header.Get("Proxy-Authorization"); p.user != "" && got != want {
		// A careless proxy shows what it was given.
		body := "denied: " + got
		fmt.Fprintf(c, "HTTP/1.1 407 Proxy Authentication Required %s\r\nContent-Length: %d\r\n\r\n%s", got, len(body), body)
		return nil
	}
	p.count.Add(1)
	if req.Method == http.MethodConnect {
		up, err := net.Dial("tcp", req.Host)
		if err != nil {
			fmt.Fprintf(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
			return err
		}
		io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		return splice(c, r, up)
	}
	req.RequestURI = ""
	req.Header.Del("Proxy-Authorization")
	direct := &http.Transport{DisableKeepAlives: true}
	res, err := direct.RoundTrip(req)
	if err != nil {
		fmt.Fprintf(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return err
	}
	res.Close = true
	err = res.Write(c)
	res.Body.Close()
	return err
}

// splice copies both ways until either side ends, and closes the upstream.
func splice(c net.Conn, from io.Reader, up net.Conn) error {
	done := make(chan struct{})
	go func() {
		io.Copy(up, from)
		up.Close()
		close(done)
	}()
	_, err := io.Copy(c, up)
	c.Close()
	up.Close()
	<-done
	return err
}

var errSOCKS = errors.New("not a SOCKS5 request that this proxy knows")

func (p *Proxy) socks(c net.Conn) error {
	r := bufio.NewReader(c)
	if err := p.greet(c, r); err != nil {
		return err
	}
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || head[1] != 1 {
		return errSOCKS
	}
	var size int
	switch head[3] {
	case 1:
		size = 4
	case 4:
		size = 16
	case 3:
		n, err := r.ReadByte()
		if err != nil {
			return err
		}
		size = int(n)
	default:
		return errSOCKS
	}
	addr := make([]byte, size+2)
	if _, err := io.ReadFull(r, addr); err != nil {
		return err
	}
	host := string(addr[:size])
	if head[3] != 3 {
		host = net.IP(addr[:size]).String()
	}
	port := strconv.Itoa(int(binary.BigEndian.Uint16(addr[size:])))
	p.count.Add(1)
	up, err := net.Dial("tcp", net.JoinHostPort(host, port))
	if err != nil {
		c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return err
	}
	c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	return splice(c, r, up)
}

// greet is the part of SOCKS5 in which the client shows who it is.
func (p *Proxy) greet(c net.Conn, r *bufio.Reader) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || head[0] != 5 {
		return errSOCKS
	}
	if _, err := r.Discard(int(head[1])); err != nil {
		return err
	}
	if p.user == "" {
		_, err := c.Write([]byte{5, 0})
		return err
	}
	c.Write([]byte{5, 2})
	text := func() string {
		n, err := r.ReadByte()
		if err != nil {
			return ""
		}
		b := make([]byte, n)
		io.ReadFull(r, b)
		return string(b)
	}
	r.Discard(1)
	if text() != p.user || text() != p.password {
		c.Write([]byte{1, 1})
		return errSOCKS
	}
	_, err := c.Write([]byte{1, 0})
	return err
}
