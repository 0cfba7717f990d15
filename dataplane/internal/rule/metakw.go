package rule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

func init() {
	add(argNeed, func(p *parser, v string) error {
		if p.sawSID {
			return errors.New("given twice")
		}
		n, err := strconv.ParseUint(strings.Trim(v, `"`), 10, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a number from 1 to 4294967295", v)
		}
		p.r.SID, p.sawSID = uint32(n), true
		return nil
	}, "sid")
	num := func(dst func(*Rule) *uint32) func(p *parser, v string) error {
		return func(p *parser, v string) error {
			n, err := strconv.ParseUint(strings.Trim(v, `"`), 10, 32)
			if err != nil {
				return fmt.Errorf("%q is not a number", v)
			}
			*dst(p.r) = uint32(n)
			return nil
		}
	}
	add(argNeed, num(func(r *Rule) *uint32 { return &r.Rev }), "rev")
	add(argNeed, num(func(r *Rule) *uint32 { return &r.GID }), "gid")
	add(argNeed, func(p *parser, v string) error {
		n, err := strconv.ParseUint(strings.TrimSpace(strings.Trim(v, `"`)), 10, 8)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a number from 1 to 255", v)
		}
		if p.setPrio && p.priority <= uint32(n) {
			return nil // the most serious one counts
		}
		p.priority, p.setPrio = uint32(n), true
		return nil
	}, "priority")
	add(argNeed, func(p *parser, v string) error {
		s, neg, err := unquote(v)
		if err != nil || neg {
			return errors.Join(err, errors.New("expected a text in quotes"))
		}
		var b strings.Builder
		for i := 0; i < len(s); i++ {
			if s[i] == '\\' && i+1 < len(s) && strings.IndexByte(`\";:`, s[i+1]) >= 0 {
				i++
			}
			b.WriteByte(s[i])
		}
		p.r.Msg = b.String()
		return nil
	}, "msg")
	add(argNeed, func(p *parser, v string) error {
		p.r.Classtype = strings.TrimSpace(v)
		return nil
	}, "classtype")
	add(argNeed, func(p *parser, v string) error {
		t, ref, ok := strings.Cut(v, ",")
		if !ok || strings.TrimSpace(ref) == "" {
			return errors.New("expected type,value")
		}
		p.r.Refs = append(p.r.Refs, Reference{strings.TrimSpace(t), strings.TrimSpace(ref)})
		return nil
	}, "reference")
	add(argNeed, func(p *parser, v string) error {
		for _, w := range splitArgs(v) {
			k, val, _ := strings.Cut(w, " ")
			if k == "" {
				continue
			}
			p.r.Metadata = append(p.r.Metadata, Metadata{k, strings.TrimSpace(val)})
		}
		return nil
	}, "metadata")
	add(argNeed, func(p *parser, v string) error {
		switch v {
		case "src_ip":
			p.r.Target = TargetSrc
		case "dest_ip":
			p.r.Target = TargetDst
		default:
			return fmt.Errorf("%q is neither src_ip nor dest_ip", v)
		}
		return nil
	}, "target")
	add(argNone, func(p *parser, _ string) error { p.r.NoAlert = true; return nil }, "noalert")
	add(argNone, func(p *parser, _ string) error { p.r.alertOnPass = true; return nil }, "alert")
	add(argNone, func(p *parser, _ string) error { p.r.bypass = true; return nil }, "bypass")
	add(argNone, func(p *parser, _ string) error { p.r.prefilter = true; return nil }, "prefilter")
	add(argMay, func(p *parser, v string) error {
		if v != "" {
			for _, w := range splitArgs(v) {
				if strings.ContainsAny(w, " ") {
					return fmt.Errorf("unknown option %q", w)
				}
			}
		}
		p.r.keepFiles = true
		return nil
	}, "filestore")
	refuse("scripts are not run", "lua", "luajit", "luaxform")
	refuse("packets after an alert are not kept", "tag")
	refuse("the engine does not decode ASN.1 for rules", "asn1")
	refuse("not a keyword of current Suricata", "sip_method", "activates", "activated_by", "count", "resp", "react", "logto", "session", "file_type")
	refuse("frames are not told apart", "frame")
	refuse("the engine has no such parser", "modbus", "dnp3_func", "dnp3_ind", "dnp3_obj", "dnp3_data", "dnp3.data", "cip_service", "enip_command",
		"nfs_procedure", "nfs_version", "nfs.procedure", "rpc", "websocket.mask", "websocket.opcode", "websocket.flags", "websocket.payload", "pgsql.query",
		"enip.command", "enip.status", "enip.cip_class", "sdp.session_name", "template2", "config", "requires")
}
