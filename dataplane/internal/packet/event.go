package packet

// Event is something odd that the decoder met, told as an anomaly and to decode-event rules.
type Event uint8

// The decoder's events.
const (
	EventNone Event = iota
	EventNullTooSmall
	EventSLLTooSmall
	EventSLL2TooSmall
	EventEthernetTooSmall
	EventVLANTooSmall
	EventVLANTooManyLayers
	EventUnknownEthertype
	EventMPLSTooSmall
	EventMPLSUnknownPayload
	EventPPPoETooSmall
	EventPPPoEMalformed
	EventPPPTooSmall
	EventIPRawInvalid
	EventIPv4TooSmall
	EventIPv4WrongVersion
	EventIPv4HeaderTooSmall
	EventIPv4LenSmallerThanHeader
	EventIPv4Truncated
	EventIPv4OptInvalid
	EventIPv4OptInvalidLen
	EventIPv4OptMalformed
	EventIPv4OptDuplicate
	EventIPv4OptPadRequired
	EventIPv4FragTooLarge
	EventIPv4FragOverlap
	EventIPv6TooSmall
	EventIPv6WrongVersion
	EventIPv6Truncated
	EventIPv6ExtTruncated
	EventIPv6ExtTooMany
	EventIPv6FragTooLarge
	EventIPv6FragOverlap
	EventIPv6RouteHeader0
	EventTCPTooSmall
	EventTCPHeaderTooSmall
	EventTCPInvalidOptLen
	EventTCPOptInvalid
	EventTCPOptDuplicate
	EventUDPTooSmall
	EventUDPHeaderTooSmall
	EventUDPLenInvalid
	EventICMPv4TooSmall
	EventICMPv4UnknownType
	EventICMPv4UnknownCode
	EventICMPv6TooSmall
	EventICMPv6UnknownType
	EventICMPv6UnknownCode
	EventSCTPTooSmall
	EventGRETooSmall
	EventGREWrongVersion
	EventIPv4InIPv6TooSmall
	EventIPv4InIPv6WrongVersion
	EventIPv6InIPv6TooSmall
	EventIPv6InIPv6WrongVersion
	EventTooManyLayers
	EventUnknownProtocol
	EventLast
)

var eventNames = [EventLast]string{
	EventNullTooSmall:             "decoder.null.pkt_too_small",
	EventSLLTooSmall:              "decoder.sll.pkt_too_small",
	EventSLL2TooSmall:             "decoder.sll2.pkt_too_small",
	EventEthernetTooSmall:         "decoder.ethernet.pkt_too_small",
	EventVLANTooSmall:             "decoder.vlan.header_too_small",
	EventVLANTooManyLayers:        "decoder.vlan.too_many_layers",
	EventUnknownEthertype:         "decoder.ethernet.unknown_ethertype",
	EventMPLSTooSmall:             "decoder.mpls.header_too_small",
	EventMPLSUnknownPayload:       "decoder.mpls.unknown_payload_type",
	EventPPPoETooSmall:            "decoder.pppoe.pkt_too_small",
	EventPPPoEMalformed:           "decoder.pppoe.malformed_tags",
	EventPPPTooSmall:              "decoder.ppp.pkt_too_small",
	EventIPRawInvalid:             "decoder.ipraw.invalid_ip_version",
	EventIPv4TooSmall:             "decoder.ipv4.pkt_too_small",
	EventIPv4WrongVersion:         "decoder.ipv4.wrong_ip_version",
	EventIPv4HeaderTooSmall:       "decoder.ipv4.hlen_too_small",
	EventIPv4LenSmallerThanHeader: "decoder.ipv4.iplen_smaller_than_hlen",
	EventIPv4Truncated:            "decoder.ipv4.trunc_pkt",
	EventIPv4OptInvalid:           "decoder.ipv4.opt_invalid",
	EventIPv4OptInvalidLen:        "decoder.ipv4.opt_invalid_len",
	EventIPv4OptMalformed:         "decoder.ipv4.opt_malformed",
	EventIPv4OptDuplicate:         "decoder.ipv4.opt_duplicate",
	EventIPv4OptPadRequired:       "decoder.ipv4.opt_pad_required",
	EventIPv4FragTooLarge:         "decoder.ipv4.frag_pkt_too_large",
	EventIPv4FragOverlap:          "decoder.ipv4.frag_overlap",
	EventIPv6TooSmall:             "decoder.ipv6.pkt_too_small",
	EventIPv6WrongVersion:         "decoder.ipv6.wrong_ip_version",
	EventIPv6Truncated:            "decoder.ipv6.trunc_pkt",
	EventIPv6ExtTruncated:         "decoder.ipv6.trunc_exthdr",
	EventIPv6ExtTooMany:           "decoder.ipv6.exthdr_too_many",
	EventIPv6FragTooLarge:         "decoder.ipv6.frag_pkt_too_large",
	EventIPv6FragOverlap:          "decoder.ipv6.frag_overlap",
	EventIPv6RouteHeader0:         "decoder.ipv6.rh_type_0",
	EventTCPTooSmall:              "decoder.tcp.pkt_too_small",
	EventTCPHeaderTooSmall:        "decoder.tcp.hlen_too_small",
	EventTCPInvalidOptLen:         "decoder.tcp.invalid_optlen",
	EventTCPOptInvalid:            "decoder.tcp.opt_invalid_len",
	EventTCPOptDuplicate:          "decoder.tcp.opt_duplicate",
	EventUDPTooSmall:              "decoder.udp.pkt_too_small",
	EventUDPHeaderTooSmall:        "decoder.udp.hlen_too_small",
	EventUDPLenInvalid:            "decoder.udp.len_invalid",
	EventICMPv4TooSmall:           "decoder.icmpv4.pkt_too_small",
	EventICMPv4UnknownType:        "decoder.icmpv4.unknown_type",
	EventICMPv4UnknownCode:        "decoder.icmpv4.unknown_code",
	EventICMPv6TooSmall:           "decoder.icmpv6.pkt_too_small",
	EventICMPv6UnknownType:        "decoder.icmpv6.unknown_type",
	EventICMPv6UnknownCode:        "decoder.icmpv6.unknown_code",
	EventSCTPTooSmall:             "decoder.sctp.pkt_too_small",
	EventGRETooSmall:              "decoder.gre.pkt_too_small",
	EventGREWrongVersion:          "decoder.gre.wrong_version",
	EventIPv4InIPv6TooSmall:       "decoder.ipv6.ipv4_in_ipv6_too_small",
	EventIPv4InIPv6WrongVersion:   "decoder.ipv6.ipv4_in_ipv6_wrong_version",
	EventIPv6InIPv6TooSmall:       "decoder.ipv6.ipv6_in_ipv6_too_small",
	EventIPv6InIPv6WrongVersion:   "decoder.ipv6.ipv6_in_ipv6_wrong_version",
	EventTooManyLayers:            "decoder.too_many_layers",
	EventUnknownProtocol:          "decoder.ipv6.unknown_next_header",
}

// String gives the name that decode-event uses with "decoder." before it.
func (e Event) String() string {
	if e >= EventLast {
		return ""
	}
	return eventNames[e]
}
