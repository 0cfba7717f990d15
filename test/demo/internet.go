package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/kadomori/kadomori/test/lab"
)

// Names that the demo's hosts ask for. The listed ones are in data/.
const (
	webName      = "www.example.jp"
	downloadName = "download.example.jp"
	saasName     = "reserve.clinic-saas.example.jp"
	backupName   = "backup.cloud.example.jp"
	videoName    = "video.example.com"
	c2Name       = "cdn-update.example.net"
	phishingName = "login.bank-secure.example.net"
)

// filler gives n bytes of a repeating pattern without holding them.
type filler struct{ left int64 }

func (f *filler) Read(p []byte) (int, error) {
	if f.left <= 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), f.left))
	for i := range p[:n] {
		p[i] = byte('a' + i%26)
	}
	f.left -= int64(n)
	return n, nil
}

func site() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(rw, "<!doctype html><title>example</title><p>ok</p>\n")
	})
	mux.HandleFunc("GET /file/{size}", func(rw http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("size"), 10, 64)
		if err != nil || n < 0 || n > 1<<30 {
			http.Error(rw, "size: want 0 to 1073741824", http.StatusBadRequest)
			return
		}
		rw.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.Copy(rw, &filler{left: n})
	})
	mux.HandleFunc("PUT /backup", func(rw http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprintln(rw, n)
	})
	return mux
}

// selfSigned makes a certificate for the demo's TLS sites; its clients do not check it.
func selfSigned(names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// serveWorld starts the servers of "the Internet", of the attackers and of the clinics' NAS in their namespaces; the NAS must
// have its address. They end with the context; errors other than that are sent to fail.
func serveWorld(ctx context.Context, w *world, fail func(error)) error {
	cert, err := selfSigned(saasName, backupName, videoName)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	secure := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	type place struct {
		host *lab.Host
		addr string
		tls  bool
	}
	places := []place{
		{w.internet, webIP + ":80", false},
		{w.internet, saasIP + ":443", true},
		{w.internet, videoIP + ":443", true},
		{w.evil, c2IP + ":8080", false},
		{w.evil, c2IP + ":443", true},
		{w.evil, phishingIP + ":80", false},
	}
	for _, c := range w.clinics {
		places = append(places, place{c.nas.host, c.nas.ip + ":80", false})
	}
	for _, p := range places {
		l, err := p.host.Listen(ctx, "tcp", p.addr)
		if err != nil {
			return fmt.Errorf("listen on %s in %s: %w", p.addr, p.host.Name(), err)
		}
		if p.tls {
			l = tls.NewListener(l, secure)
		}
		serve(ctx, l, site(), fail)
	}
	return nil
}

func serve(ctx context.Context, l net.Listener, h http.Handler, fail func(error)) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() {
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			fail(fmt.Errorf("serve %s: %w", l.Addr(), err))
		}
	}()
}

// startDNSMasq runs the provider's router for all clinics: DHCP with fixed leases, and a DNS that knows the demo's names.
func startDNSMasq(ctx context.Context, w *world, logFile string) error {
	args := []string{
		"--keep-in-foreground", "--no-resolv", "--no-hosts", "--no-poll", "--conf-file=/dev/null", "--pid-file=", "--user=root",
		"--leasefile-ro", "--dhcp-authoritative", "--bind-dynamic", "--except-interface=lo", "--except-interface=evil0",
		"--log-facility=" + logFile, "--log-dhcp", "--no-ping",
		"--address=/example.jp/" + webIP, "--address=/" + saasName + "/" + saasIP, "--address=/" + backupName + "/" + saasIP,
		"--address=/" + videoName + "/" + videoIP, "--address=/" + c2Name + "/" + c2IP, "--address=/" + phishingName + "/" + phishingIP,
	}
	for _, c := range w.clinics {
		args = append(args,
			fmt.Sprintf("--dhcp-range=192.168.%d.100,192.168.%d.200,255.255.255.0,1h", 10+c.n, 10+c.n),
			fmt.Sprintf("--dhcp-range=192.168.%d.100,192.168.%d.200,255.255.255.0,1h", 110+c.n, 110+c.n))
		for _, d := range c.devices() {
			args = append(args, fmt.Sprintf("--dhcp-host=%s,%s", d.mac, d.ip))
		}
	}
	cmd := w.internet.Command(ctx, "dnsmasq", args...)
	out, err := os.Create(logFile + ".out")
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // the child has its own descriptor
	cmd.Stdout, cmd.Stderr = out, out
	if _, err := w.internet.Start(cmd); err != nil {
		return err
	}
	return nil
}

// lease gets every device its address by DHCP, through the wire.
func lease(ctx context.Context, w *world, script string) error {
	for _, c := range w.clinics {
		for _, d := range c.devices() {
			cmd := d.host.Command(ctx, "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "8", "-T", "1", "-x", "hostname:"+d.name,
				"-V", "kadomori-demo", "-s", script)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("get an address for %s of %s by DHCP: %w: %s", d.name, c.name, err, out)
			}
			got, err := d.host.Output("ip", "-4", "-o", "addr", "show", "dev", "eth0")
			if err != nil {
				return err
			}
			if want := d.ip + "/24"; !containsField(got, want) {
				return fmt.Errorf("get an address for %s of %s by DHCP: want %s, have %s", d.name, c.name, want, got)
			}
		}
	}
	return nil
}
