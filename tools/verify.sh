#!/usr/bin/env bash
# Makes generated code again and fails when it differs from what is committed; checks that modules are tidy.
# Called by `make verify`.
set -euo pipefail
cd "$(dirname "$0")/.."

state() { git status --porcelain --untracked-files=all; git diff; }

before=$(state)
make --no-print-directory generate
after=$(state)
if [ "$before" != "$after" ]; then
	diff <(printf '%s\n' "$before") <(printf '%s\n' "$after") | head -60 >&2 || true
	echo "verify: generated code was not current; commit what 'make generate' made" >&2
	exit 1
fi

failed=0
for module in proto dataplane controlplane reporter test tools tools/lint; do
	if ! out=$(cd "$module" && GOWORK=off go mod tidy -diff 2>&1); then
		printf '%s\n' "$out" | head -40 >&2
		echo "verify: $module/go.mod is not tidy; run 'go mod tidy' there with GOWORK=off" >&2
		failed=1
	fi
done

# Messages that are in the field must stay readable: compare with the last release, when there is one.
if tag=$(git describe --tags --abbrev=0 2>/dev/null); then
	.bin/buf breaking --against ".git#tag=$tag" || failed=1
fi
exit "$failed"
