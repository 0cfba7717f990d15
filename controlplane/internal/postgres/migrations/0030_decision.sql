-- +goose Up
-- Verdicts on detections, the suppressions they may bring, and cases.

-- One act of one operator. What it covers lies in decision_scope, one row for each clinic and signature.
CREATE TABLE decision (
  decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  verdict     text NOT NULL CHECK (verdict IN ('threat','false_alarm','expected','quiet')),
  -- pending: waits for a second person and hides nothing; active; undone; lifted: hid until lifted
  state       text NOT NULL CHECK (state IN ('pending','active','undone','lifted')),
  reason      text NOT NULL CHECK (reason <> ''),
  fleet       boolean NOT NULL DEFAULT false, -- meant for all clinics, so a high severity needs a second person
  severity    smallint NOT NULL, -- highest among what was judged
  alerts      bigint NOT NULL,   -- how many it judged
  clinics     int NOT NULL,
  device_mac  macaddr,           -- conditions of a suppression; NULL does not limit
  dst_ip      inet,
  dst_port    int,
  expires_at  timestamptz,       -- of a suppression; NULL: nothing in the future is hidden
  replay      bigint NOT NULL DEFAULT 0, -- alerts of the 30 days before that it would have hidden
  author      text NOT NULL,
  approver    text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT now(),
  ended_at    timestamptz,       -- undone or lifted
  ended_by    text NOT NULL DEFAULT '',
  end_reason  text NOT NULL DEFAULT '',
  -- No suppression is for ever.
  CHECK ((expires_at IS NOT NULL) = (verdict IN ('expected','quiet'))),
  CHECK (expires_at <= created_at + interval '181 days')
);
CREATE INDEX ON decision (expires_at) WHERE state = 'active' AND expires_at IS NOT NULL;

-- An alert is judged when a row here has its clinic and signature, its conditions hold, and it was committed up to hides_through.
CREATE TABLE decision_scope (
  clinic_id     int NOT NULL REFERENCES clinic,
  decision_id   bigint NOT NULL REFERENCES decision,
  kind          text NOT NULL CHECK (kind IN ('alert','detection')),
  rule          text NOT NULL,
  alerts        bigint NOT NULL,
  seen_through  timestamptz NOT NULL, -- commit time up to which the operator saw
  hides_through timestamptz NOT NULL, -- seen_through, or the end of a suppression; -infinity when pending or undone
  device_mac    macaddr,
  dst_ip        inet,
  dst_port      int,
  PRIMARY KEY (clinic_id, kind, rule, decision_id)
);
CREATE INDEX ON decision_scope (decision_id);

CREATE TABLE cases (
  case_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  title      text NOT NULL CHECK (title <> ''),
  severity   smallint NOT NULL,
  status     text NOT NULL DEFAULT 'new' CHECK (status IN ('new','investigating','responding','waiting','closed')),
  resolution text NOT NULL DEFAULT '' CHECK (resolution IN ('','threat_handled','threat_attempted','false_alarm','expected')),
  owner      text NOT NULL DEFAULT '',
  author     text NOT NULL,
  opened_at  timestamptz NOT NULL DEFAULT now(),
  changed_at timestamptz NOT NULL DEFAULT now(),
  closed_at  timestamptz,
  CHECK ((status = 'closed') = (resolution <> '')),
  CHECK ((status = 'closed') = (closed_at IS NOT NULL))
);

-- Which clinic and signature a case is about.
CREATE TABLE case_scope (
  clinic_id   int NOT NULL REFERENCES clinic,
  case_id     bigint NOT NULL REFERENCES cases,
  kind        text NOT NULL,
  rule        text NOT NULL,
  decision_id bigint REFERENCES decision,
  added_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (clinic_id, case_id, kind, rule)
);
CREATE INDEX ON case_scope (case_id);

-- What happened in a case, never changed.
CREATE TABLE case_entry (
  case_entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  case_id bigint NOT NULL REFERENCES cases,
  t       timestamptz NOT NULL DEFAULT now(),
  author  text NOT NULL,
  kind    text NOT NULL CHECK (kind IN ('opened','note','status','owner','scope')),
  body    text NOT NULL DEFAULT ''
);
CREATE INDEX ON case_entry (case_id, case_entry_id);

-- +goose StatementBegin
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['decision_scope','case_scope'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY fleet ON %I TO kadomori_fleet USING (true) WITH CHECK (true)', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I USING (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))
                      WITH CHECK (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))$p$, t);
  END LOOP;
  -- Reasons and notes may speak of several clinics: only the fleet's role reads them.
  FOREACH t IN ARRAY ARRAY['decision','cases','case_entry'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY fleet ON %I TO kadomori_fleet USING (true) WITH CHECK (true)', t);
  END LOOP;
END $$;
-- +goose StatementEnd
GRANT SELECT, INSERT, UPDATE ON decision, decision_scope, cases, case_scope TO kadomori_fleet;
GRANT SELECT ON decision_scope, case_scope TO kadomori_app;
GRANT SELECT, INSERT ON case_entry TO kadomori_fleet;

-- +goose Down
DROP TABLE case_entry;
DROP TABLE case_scope;
DROP TABLE cases;
DROP TABLE decision_scope;
DROP TABLE decision;
