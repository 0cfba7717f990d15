// Package setting keeps the few facts about the MSP that reports and the console print: its name, desk, telephone, hours. The RPC
// server reads and writes them. The trap: a name that nobody reads would be silently useless, so only known names are taken.
package setting

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
)

// ErrInvalid says: an unknown name or a value that can't be printed; wrapped with which.
var ErrInvalid = errors.New("setting is not valid")

// Known are the names and what they mean.
var Known = map[string]string{
	"msp.name":  "name of the managed service provider, as the report's sender",
	"msp.desk":  "desk or department that answers",
	"msp.phone": "telephone number of the desk",
	"msp.hours": "hours of the desk, in words: 平日 9:00〜18:00",
}

const maxValue = 200 // runes

// Set changes some settings; an empty value removes one. tx is of the fleet's role. Error: ErrInvalid.
func Set(ctx context.Context, tx pgx.Tx, actor string, values map[string]string) error {
	if len(values) == 0 {
		return fmt.Errorf("%w: none was given", ErrInvalid)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := strings.TrimSpace(values[name])
		if _, ok := Known[name]; !ok {
			return fmt.Errorf("%w: %.60q is unknown; known are %s", ErrInvalid, name, strings.Join(slices.Sorted(maps.Keys(Known)), ", "))
		}
		if !utf8.ValidString(v) || utf8.RuneCountInString(v) > maxValue || strings.ContainsFunc(v, unicode.IsControl) {
			return fmt.Errorf("%w: %s: want at most %d printable characters", ErrInvalid, name, maxValue)
		}
		var err error
		if v == "" {
			_, err = tx.Exec(ctx, `DELETE FROM setting WHERE name = $1`, name)
		} else {
			_, err = tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value`, name, v)
		}
		if err != nil {
			return fmt.Errorf("store setting: %w", err)
		}
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: "setting.set", Target: "msp", Detail: values})
}

// Get returns the settings that are set.
func Get(ctx context.Context, tx pgx.Tx) (map[string]string, error) {
	q, err := tx.Query(ctx, `SELECT name, value FROM setting WHERE name LIKE 'msp.%'`)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	out := map[string]string{}
	var name, value string
	_, err = pgx.ForEachRow(q, []any{&name, &value}, func() error {
		out[name] = value
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return out, nil
}
