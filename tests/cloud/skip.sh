#!/usr/bin/env bash
# Says loudly that something is not tested, and goes on; with FRESHET_REQUIRE_ALL it is a failure.
printf '\n    SKIPPED: %s\n\n' "$1" >&2
[[ -z ${FRESHET_REQUIRE_ALL:-} ]]
