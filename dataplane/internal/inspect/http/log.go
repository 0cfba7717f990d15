package http

import (
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
)

// EVEType is "http".
func (t *Tx) EVEType() string { return "http" }

// AppendEVE writes the extended http object.
func (t *Tx) AppendEVE(b []byte) []byte {
	return append(t.AppendFields(append(b, '{')), '}')
}

// AppendFields writes the members of the object.
func (t *Tx) AppendFields(b []byte) []byte {
	b = inspect.AppendField(b, "hostname", t.Host())
	if h := t.req.find("host"); h != nil {
		for i := len(h) - 1; i > 0; i-- {
			if h[i] == ':' {
				if n, err := strconv.ParseUint(string(h[i+1:]), 10, 16); err == nil {
					b = append(inspect.AppendKey(b, "http_port"), strconv.FormatUint(n, 10)...)
				}
				break
			}
			if h[i] < '0' || h[i] > '9' {
				break
			}
		}
	}
	b = inspect.AppendField(b, "url", t.req.at(t.rawURI))
	b = inspect.AppendField(b, "http_user_agent", t.req.find("user-agent"))
	b = inspect.AppendField(b, "http_content_type", contentType(t.res.find("content-type")))
	b = inspect.AppendField(b, "http_refer", t.req.find("referer"))
	b = inspect.AppendField(b, "http_method", t.Method())
	if !t.h2 {
		b = inspect.AppendField(b, "protocol", t.req.at(t.protocol))
	}
	if t.status == 0 && len(t.res.at(t.statCode)) > 0 {
		b = inspect.AppendField(b, "status_string", t.res.at(t.statCode))
	}
	if t.status > 0 {
		b = strconv.AppendInt(inspect.AppendKey(b, "status"), int64(t.status), 10)
		if t.status/100 == 3 {
			b = inspect.AppendField(b, "redirect", t.res.find("location"))
		}
	}
	return strconv.AppendUint(inspect.AppendKey(b, "length"), t.res.bodyLen, 10)
}

func contentType(v []byte) []byte {
	for i, c := range v {
		if c == ';' || c == ' ' {
			return v[:i]
		}
	}
	return v
}
