-- +goose Up
-- The clinic's own view: who may open it, what the MSP asks of the clinic, and the director's signature.

CREATE TABLE clinic_access (
  clinic_id   int NOT NULL REFERENCES clinic,
  access_id   bigint GENERATED ALWAYS AS IDENTITY,
  role        text NOT NULL CHECK (role IN ('director','staff')),
  secret_hash bytea NOT NULL UNIQUE, -- SHA-256 of a random pass of 75 bits, so a slow hash would add nothing
  created_by  text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL,
  revoked_at  timestamptz,
  PRIMARY KEY (clinic_id, access_id)
);

CREATE TABLE clinic_session (
  token_hash bytea PRIMARY KEY, -- SHA-256 of 32 random bytes
  clinic_id  int NOT NULL,
  access_id  bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  FOREIGN KEY (clinic_id, access_id) REFERENCES clinic_access ON DELETE CASCADE
);

-- A request to the clinic: at most three are open at a time.
CREATE TABLE action_card (
  clinic_id   int NOT NULL REFERENCES clinic,
  card_id     bigint GENERATED ALWAYS AS IDENTITY,
  case_id     bigint REFERENCES cases,
  title       text NOT NULL CHECK (title <> ''),
  body        text NOT NULL DEFAULT '',
  who         text NOT NULL DEFAULT '',  -- 院長先生, 事務長さま
  due         date,
  minutes     int,                       -- how long it takes
  vendor_text text NOT NULL DEFAULT '',  -- to be handed to the clinic's vendor
  author      text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  answer      text NOT NULL DEFAULT '' CHECK (answer IN ('','done','call','withdrawn')),
  answered_at timestamptz,
  read_at     timestamptz,
  PRIMARY KEY (clinic_id, card_id),
  CHECK ((answer = '') = (answered_at IS NULL))
);

-- The director has read a report. Bound to the very bytes of the PDF.
CREATE TABLE report_signature (
  clinic_id  int NOT NULL REFERENCES clinic,
  report_id  bigint NOT NULL REFERENCES report,
  name       text NOT NULL CHECK (name <> ''),
  access_id  bigint NOT NULL,
  pdf_sha256 bytea NOT NULL,
  signed_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (clinic_id, report_id)
);

-- +goose StatementBegin
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['clinic_access','clinic_session','action_card','report_signature'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY fleet ON %I TO kadomori_fleet USING (true) WITH CHECK (true)', t);
    EXECUTE format($p$CREATE POLICY tenant ON %I USING (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))
                      WITH CHECK (clinic_id = ANY ((SELECT kadomori_clinics())::int[]))$p$, t);
  END LOOP;
END $$;
-- +goose StatementEnd
GRANT SELECT, INSERT, UPDATE ON clinic_access, action_card TO kadomori_fleet;
GRANT SELECT ON clinic_access TO kadomori_app;
GRANT SELECT, UPDATE ON action_card TO kadomori_app;
GRANT SELECT, INSERT, DELETE ON clinic_session TO kadomori_app, kadomori_fleet;
GRANT SELECT, INSERT ON report_signature TO kadomori_app;
GRANT SELECT ON report_signature TO kadomori_fleet;

-- +goose Down
DROP TABLE report_signature;
DROP TABLE action_card;
DROP TABLE clinic_session;
DROP TABLE clinic_access;
