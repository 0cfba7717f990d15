package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// ErrIdentity says that a certificate or request does not carry the identity of exactly one appliance.
var ErrIdentity = errors.New("no appliance identity")

// trustDomain is the host of every identity URI (SPIFFE ID, https://github.com/spiffe/spiffe, SPIFFE-ID.md section 2).
const trustDomain = "kadomori"

// Identity is who an appliance is: both ids are 1 to 2^31-1, as the database gave them.
type Identity struct {
	Clinic    int32
	Appliance int32
}

// URI returns spiffe://kadomori/clinic/<id>/appliance/<id>, the only name in an appliance's certificate.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: i.path()}
}

// String returns the URI as text.
func (i Identity) String() string { return i.URI().String() }

func (i Identity) path() string {
	return "/clinic/" + strconv.Itoa(int(i.Clinic)) + "/appliance/" + strconv.Itoa(int(i.Appliance))
}

// ParseIdentity reads an identity URI; only the one spelling that URI writes is taken. Error: ErrIdentity.
func ParseIdentity(u *url.URL) (Identity, error) {
	bad := func() (Identity, error) {
		return Identity{}, fmt.Errorf("%w: URI %q", ErrIdentity, clip(u.String(), 120))
	}
	part := strings.Split(u.Path, "/")
	if u.Scheme != "spiffe" || u.Host != trustDomain || len(part) != 5 || part[1] != "clinic" || part[3] != "appliance" {
		return bad()
	}
	clinic, err1 := strconv.ParseInt(part[2], 10, 32)
	appliance, err2 := strconv.ParseInt(part[4], 10, 32)
	i := Identity{Clinic: int32(clinic), Appliance: int32(appliance)}
	if err1 != nil || err2 != nil || clinic < 1 || appliance < 1 || i.String() != u.String() {
		return bad()
	}
	return i, nil
}

// IdentityOf returns whose certificate it is: exactly one URI and no other name. It does not verify the certificate.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 {
		return Identity{}, fmt.Errorf("%w: certificate has %d URIs", ErrIdentity, len(cert.URIs))
	}
	return ParseIdentity(cert.URIs[0])
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
