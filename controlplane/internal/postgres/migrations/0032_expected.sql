-- +goose Up
-- How long a box should have reported within [p_from, p_to): since its first event (or, without one, since it was made), up to one
-- health interval before now, because the report of the running minute can't be here yet. The one definition behind every 稼働率 of
-- the console.
-- +goose StatementBegin
CREATE FUNCTION appliance_expected_ms(p_appliance int, p_created timestamptz, p_from timestamptz, p_to timestamptz, p_now timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
  SELECT greatest(0, extract(epoch FROM least(p_to, p_now - interval '60 seconds')
    - greatest(p_from, coalesce((SELECT min(first_at) FROM event_ledger WHERE appliance_id = p_appliance), p_created))) * 1000)::bigint
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION appliance_expected_ms;
