package ingest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	stored, duplicates, refused, letters, failed, holes prometheus.Counter
	seconds, lag                                        prometheus.Histogram
	batch                                               prometheus.Histogram
	outside, pending, streamBytes, gaps                 prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kadomori", Subsystem: "ingest", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kadomori", Subsystem: "ingest", Name: name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "kadomori", Subsystem: "ingest", Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		stored:      counter("events_total", "Events stored for the first time."),
		duplicates:  counter("duplicates_total", "Events that were stored already and dropped."),
		refused:     counter("refused_total", "Events with a number whose content could not be stored."),
		letters:     counter("dead_letters_total", "Messages and events that could not be read, also those beyond what the table keeps."),
		failed:      counter("failed_batches_total", "Transactions that failed and were tried again."),
		holes:       counter("holes_refused_total", "Events refused because their stream has too many holes."),
		seconds:     histogram("batch_seconds", "Time of one transaction.", prometheus.ExponentialBuckets(0.001, 2, 14)),
		lag:         histogram("lag_seconds", "Age of a batch's oldest event when it was committed, by box time.", prometheus.ExponentialBuckets(0.01, 3, 16)),
		batch:       histogram("batch_events", "Events of one transaction.", prometheus.ExponentialBuckets(1, 4, 9)),
		outside:     gauge("events_outside_partitions", "Events with absurd times, counted to 1000."),
		gaps:        gauge("open_gaps", "Confirmed ranges of missing events."),
		pending:     gauge("pending_messages", "Messages in the stream that are not committed yet."),
		streamBytes: gauge("stream_bytes", "Size of the stream."),
	}
	if r != nil {
		r.MustRegister(m.stored, m.duplicates, m.refused, m.letters, m.failed, m.holes, m.seconds, m.lag, m.batch, m.outside, m.gaps, m.pending, m.streamBytes)
	}
	return m
}

func (m *metrics) observe(r *result, took time.Duration) {
	m.stored.Add(float64(r.stored))
	m.duplicates.Add(float64(r.duplicates))
	m.refused.Add(float64(r.refused))
	m.letters.Add(float64(r.deadLetters))
	m.holes.Add(float64(r.tooManyHoles))
	m.seconds.Observe(took.Seconds())
	if r.stored > 0 {
		m.lag.Observe(max(r.lag, 0).Seconds())
		m.batch.Observe(float64(r.stored))
	}
}
