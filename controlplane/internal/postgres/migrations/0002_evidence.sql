-- +goose Up
-- Gaps as rows, daily sums, retention with legal hold, and the chain of evidence.

-- Box clock minus ours in milliseconds as the box knew it when it sent the event; NULL: not measured yet.
ALTER TABLE event ADD COLUMN clock_offset_ms int;
-- Rows lie in the order of their receipt: a day of receipt is found in every partition by a few pages.
-- Few rows; the sweep for gaps asks for them every few seconds.
CREATE INDEX event_stream ON event (appliance_id, stream_id) WHERE kind IN ('stream_start','spool_gap');
CREATE INDEX event_received ON event USING brin (received_at);

-- Set by a restore from a backup: the first number that the backup doesn't have. A gap there is told as one of the restore.
ALTER TABLE event_ledger ADD COLUMN restored_top bigint;

-- A range of numbers that is missing. A hole must be seen twice by the sweep (some seconds) before it is confirmed: batches that are
-- written side by side make holes that close by themselves. A gap that is filled in part is closed as split, and its rests follow it.
CREATE TABLE event_gap (
  clinic_id    int NOT NULL REFERENCES clinic,
  gap_id       bigint GENERATED ALWAYS AS IDENTITY,
  appliance_id int NOT NULL,
  stream_id    uuid NOT NULL,
  from_seq     bigint NOT NULL,
  to_seq       bigint,        -- inclusive; NULL: the stream ended and nobody knows how many there were
  cause        text NOT NULL, -- undeclared; as the box declared: full, corrupt, unreadable, queue; refused (dead letter); restored; stream-ended
  from_t       timestamptz,   -- box time of the last event before; NULL: none
  to_t         timestamptz,   -- box time of the first event after
  confirmed    boolean NOT NULL DEFAULT false,
  opened_at    timestamptz NOT NULL DEFAULT now(),
  closed_at    timestamptz,
  closed_as    text NOT NULL DEFAULT '' CHECK (closed_as IN ('','filled','split','cause')),
  PRIMARY KEY (clinic_id, gap_id),
  FOREIGN KEY (clinic_id, appliance_id) REFERENCES appliance (clinic_id, appliance_id)
);
CREATE UNIQUE INDEX event_gap_open ON event_gap (appliance_id, stream_id, from_seq, coalesce(to_seq, 0), cause) WHERE closed_at IS NULL;
CREATE INDEX ON event_gap (clinic_id, opened_at);

-- Events of confirmed gaps, by the hour in which the gap begins; follows the gaps as they open and close.
ALTER TABLE coverage_hourly ADD COLUMN lost_events bigint NOT NULL DEFAULT 0;

-- Sums per day of Japan time, kept in the ingest transaction; they outlive the hours and the events.
CREATE TABLE traffic_daily (
  clinic_id  int NOT NULL REFERENCES clinic,
  day        date NOT NULL,
  app        text NOT NULL,
  device_mac macaddr NOT NULL,
  zone       text NOT NULL,
  visibility text NOT NULL,
  bytes_in   bigint NOT NULL,
  bytes_out  bigint NOT NULL,
  packets    bigint NOT NULL,
  flows      bigint NOT NULL,
  PRIMARY KEY (clinic_id, day, app, device_mac, zone, visibility)
);
CREATE TABLE finding_daily (
  clinic_id int NOT NULL REFERENCES clinic,
  day       date NOT NULL,
  kind      text NOT NULL, -- alert, detection, block
  rule      text NOT NULL,
  title     text NOT NULL,
  category  text NOT NULL,
  severity  smallint NOT NULL,
  action    text NOT NULL,
  events    bigint NOT NULL,
  count     bigint NOT NULL, -- what they stand for
  PRIMARY KEY (clinic_id, day, kind, rule, title, category, severity, action)
);

-- How long what is kept. clinic_id NULL: for all that have no rule of their own.
CREATE TABLE retention_rule (
  clinic_id  int REFERENCES clinic,
  dataset    text NOT NULL CHECK (dataset IN ('security','operation','traffic_hourly','daily','coverage','dead_letter')),
  days       int NOT NULL CHECK (days BETWEEN 1 AND 36500),
  waiver     text NOT NULL DEFAULT '', -- the written reason for keeping security events less than a year
  author     text NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (dataset <> 'security' OR days >= 365 OR waiver <> '')
);
CREATE UNIQUE INDEX ON retention_rule (coalesce(clinic_id, 0), dataset);
INSERT INTO retention_rule (clinic_id, dataset, days, author) VALUES
  (NULL, 'security', 400, 'default'),      -- alerts, detections, blocks, unprotected time, gaps, self-tests: 13 months
  (NULL, 'operation', 90, 'default'),      -- traffic, health, devices seen
  (NULL, 'traffic_hourly', 90, 'default'),
  (NULL, 'daily', 400, 'default'),         -- 13 months: a whole year at every inspection
  (NULL, 'coverage', 1827, 'default'),     -- five years, as the reports that it is evidence for
  (NULL, 'dead_letter', 30, 'default');

-- 保全: nothing of the clinic from this span is deleted while it stands. to_t NULL: open.
CREATE TABLE legal_hold (
  clinic_id   int NOT NULL REFERENCES clinic,
  hold_id     bigint GENERATED ALWAYS AS IDENTITY,
  from_t      timestamptz NOT NULL,
  to_t        timestamptz,
  reason      text NOT NULL CHECK (reason <> ''),
  author      text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  released_at timestamptz,
  released_by text,
  PRIMARY KEY (clinic_id, hold_id),
  CHECK (to_t IS NULL OR to_t > from_t),
  CHECK ((released_at IS NULL) = (released_by IS NULL))
);

-- What was deleted and by which rule: deletion can be shown.
CREATE TABLE deletion_log (
  clinic_id   int NOT NULL REFERENCES clinic,
  deletion_id bigint GENERATED ALWAYS AS IDENTITY,
  t           timestamptz NOT NULL DEFAULT now(),
  dataset     text NOT NULL,
  before      timestamptz NOT NULL, -- everything older than this, outside of holds
  days        int NOT NULL,
  rows        bigint NOT NULL,
  oldest      timestamptz NOT NULL, -- of what was deleted
  newest      timestamptz NOT NULL,
  PRIMARY KEY (clinic_id, deletion_id)
);

-- One link a clinic and day (Japan time) of receipt. hash = SHA-256 over what evidence.Link writes; it holds prev.
CREATE TABLE evidence_day (
  clinic_id     int NOT NULL REFERENCES clinic,
  day           date NOT NULL,
  events        bigint NOT NULL,
  events_sha256 bytea NOT NULL,
  ledger        jsonb NOT NULL, -- [[appliance, stream, got, declared, refused], ...] as it was at the end of the day
  ledger_sha256 bytea NOT NULL,
  prev          bytea NOT NULL, -- hash of the day before; 32 zero bytes for the first
  hash          bytea NOT NULL,
  sealed_at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (clinic_id, day)
);

-- +goose StatementBegin
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['event_gap','traffic_daily','finding_daily','retention_rule','legal_hold','deletion_log','evidence_day'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY fleet ON %I TO kadomori_fleet USING (true) WITH CHECK (true)', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I USING (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))
                      WITH CHECK (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))$p$, t);
  END LOOP;
END $$;
-- +goose StatementEnd
CREATE POLICY defaults ON retention_rule FOR SELECT USING (clinic_id IS NULL);

GRANT SELECT ON event_gap, traffic_daily, finding_daily, deletion_log, evidence_day TO kadomori_app, kadomori_fleet;
GRANT SELECT, INSERT, UPDATE ON legal_hold TO kadomori_app, kadomori_fleet;
GRANT SELECT, INSERT, UPDATE, DELETE ON retention_rule TO kadomori_app, kadomori_fleet;
GRANT SELECT, INSERT, UPDATE, DELETE ON event_gap TO kadomori_ingest;
GRANT SELECT, INSERT, UPDATE ON traffic_daily, finding_daily TO kadomori_ingest;
GRANT SELECT, INSERT ON deletion_log, evidence_day TO kadomori_ingest;
GRANT SELECT ON retention_rule, legal_hold, audit_log, audit_head TO kadomori_ingest;
GRANT DELETE ON event, traffic_hourly, traffic_daily, finding_daily, coverage_hourly, dead_letter TO kadomori_ingest;

-- Confirmed gaps; lost is NULL when nobody knows.
CREATE VIEW report_gap WITH (security_barrier) AS
  SELECT clinic_id, gap_id, appliance_id, stream_id, from_seq, to_seq, to_seq - from_seq + 1 AS lost, cause, cause NOT IN ('undeclared','refused','restored') AS declared,
         from_t, to_t, opened_at, closed_at, closed_as
  FROM event_gap WHERE confirmed AND clinic_id = ANY ((SELECT kadomori_clinics())::int[]);
CREATE VIEW report_traffic_daily WITH (security_barrier) AS
  SELECT clinic_id, day, app, device_mac, zone, visibility, bytes_in, bytes_out, packets, flows
  FROM traffic_daily WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);
CREATE VIEW report_finding_daily WITH (security_barrier) AS
  SELECT clinic_id, day, kind, rule, title, category, severity, action, events, count
  FROM finding_daily WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);
CREATE VIEW report_evidence WITH (security_barrier) AS
  SELECT clinic_id, day, events, hash, sealed_at FROM evidence_day WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);
-- Synthetic detections through the whole path; a day without one means that a zero is no evidence.
CREATE VIEW report_self_test WITH (security_barrier) AS
  SELECT clinic_id, appliance_id, stream_id, seq, t, (detail->>'passed')::boolean AS passed
  FROM event WHERE kind = 'self_test' AND clinic_id = ANY ((SELECT kadomori_clinics())::int[]);
CREATE OR REPLACE VIEW report_coverage WITH (security_barrier) AS
  SELECT clinic_id, appliance_id, hour, reported_ms, unprotected_ms, packets_seen, packets_lost, bytes_clear, bytes_name, bytes_opaque, lost_events
  FROM coverage_hourly WHERE clinic_id = ANY ((SELECT kadomori_clinics())::int[]);
GRANT SELECT ON report_gap, report_traffic_daily, report_finding_daily, report_evidence, report_self_test
  TO kadomori_app, kadomori_fleet, kadomori_reporter;

-- Drops the partition of a month when it is empty; returns whether it did. Empty partitions cost every query a look.
-- +goose StatementBegin
CREATE FUNCTION event_drop_empty_partition(p_month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  name text := 'event_' || to_char(p_month, 'YYYY_MM');
  full_ boolean;
BEGIN
  IF to_regclass('public.' || quote_ident(name)) IS NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', name);
  EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO full_;
  IF full_ THEN
    RETURN false;
  END IF;
  EXECUTE format('DROP TABLE public.%I', name);
  RETURN true;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION event_drop_empty_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION event_drop_empty_partition TO kadomori_ingest;
GRANT EXECUTE ON FUNCTION event_outside_partitions TO kadomori_app, kadomori_fleet;

-- +goose Down
SELECT 1;
