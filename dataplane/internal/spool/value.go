package spool

import eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"

// Value classes, lowest first: what a full spool drops first. Aggregates and folds of repeats go first; they are many and
// each says little. Detections and health go last: the one is what the report is about, the other what makes a zero mean
// something.
const (
	classAggregate = iota // traffic, folds of repeated alerts and blocks
	classInventory        // device list, alerts of low severity
	classAlert            // first alerts, first blocks
	classDetection        // detections, health, unprotected time, self-tests
	classRecord           // what the spool says about itself
	classes
)

// kindOf returns an event's kind as SpoolGap.kinds names it, its value class, and whether it should be on disk at once.
func kindOf(e *eventv1.Event) (kind string, class byte, urgent bool) {
	switch b := e.GetBody().(type) {
	case *eventv1.Event_Alert:
		sev := b.Alert.GetSeverity()
		urgent = sev >= eventv1.Severity_SEVERITY_HIGH && b.Alert.GetCount() <= 1
		switch {
		case b.Alert.GetCount() > 1:
			return "alert", classAggregate, false
		case sev <= eventv1.Severity_SEVERITY_LOW:
			return "alert", classInventory, false
		default:
			return "alert", classAlert, urgent
		}
	case *eventv1.Event_Detection:
		return "detection", classDetection, b.Detection.GetSeverity() >= eventv1.Severity_SEVERITY_HIGH
	case *eventv1.Event_Block:
		if b.Block.GetCount() > 1 {
			return "block", classAggregate, false
		}
		return "block", classAlert, false
	case *eventv1.Event_Traffic:
		return "traffic", classAggregate, false
	case *eventv1.Event_DeviceSeen:
		return "device", classInventory, false
	case *eventv1.Event_Health:
		return "health", classDetection, false
	case *eventv1.Event_Unprotected:
		return "unprotected", classDetection, false
	case *eventv1.Event_SelfTest:
		return "self_test", classDetection, false
	case *eventv1.Event_SpoolGap:
		return "spool_gap", classRecord, false
	case *eventv1.Event_StreamStart:
		return "stream_start", classRecord, false
	default:
		return "unknown", classAlert, false
	}
}
