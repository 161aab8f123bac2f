#!/usr/bin/env bash
# Takes each guard of the protocol out, one at a time, in a copy of the sources, and shows which tests notice.
# Exits with 1 when a mutation survives. Usage: tests/mutations.sh [NAME-PATTERN]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
copy=$root/target/mutations
# A target folder of its own: cargo takes a copy of the workspace for the workspace itself, and would leave mutated code in it.
pattern=${1:-.}
handler=functions/consumer/src/handler.rs ledger=functions/consumer/src/ledger.rs
range=functions/consumer/src/range.rs key=functions/pipeline/src/lake/key.rs
survivors=0

fresh_copy() {
    rm -rf "$copy"
    mkdir -p "$copy"
    git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$copy"
}

# mutate NAME FILE PERL-SUBSTITUTION
mutate() {
    local name=$1 file=$2 change=$3
    [[ $name =~ $pattern ]] || return 0
    cp "$root/$file" "$copy/$file"
    perl -0pi -e "$change" "$copy/$file"
    if cmp -s "$root/$file" "$copy/$file"; then
        echo "mutations: '$name' changes nothing in $file: adjust its pattern" >&2
        exit 2
    fi
    local start=$SECONDS log=$copy/log caught
    if (cd "$copy" && CARGO_TARGET_DIR=$root/target/mutations-build PROPTEST_CASES=${PROPTEST_CASES:-300} PROPTEST_MAX_SHRINK_ITERS=0 \
        cargo test --quiet --workspace --test pipeline -- exactly_once histories >"$log" 2>&1); then
        caught="NOTHING"
        survivors=$((survivors + 1))
    elif grep -q '^error' "$log" && ! grep -q '^failures:' "$log"; then
        grep -A5 '^error' "$log" | head -20
        echo "mutations: '$name' does not compile" >&2
        exit 2
    else
        caught=$(sed -n 's/^    \([a-z_]*::[a-z_]*\)$/\1/p' "$log" | sort -u | sed 's/.*:://' | paste -sd' ')
    fi
    cp "$root/$file" "$copy/$file"
    printf '| %s | %ss | %s |\n' "$name" $((SECONDS - start)) "$caught"
}

fresh_copy
echo '| guard taken out | found after | caught by |'
echo '|---|---|---|'
mutate 'adopt the end: go on behind the first offset instead' $handler 's/end: theirs\.end,/end: first.offset,/'
mutate 'adopt the newest timestamp' $handler 's/newest_timestamp: theirs\.newest_timestamp/newest_timestamp: None/'
mutate 'adopt only what begins with the same record' $handler 's/if theirs\.first != first/if false/'
mutate 'an object also for a range without rows' $handler 's/(        \/\/ A first record that lies)/        if rows == 0 { return Ok(Stored { end: range.end, newest_timestamp: range.newest_timestamp }); }\n$1/'
mutate 'dead letters before the object' $handler 's/        if !letters\.is_empty\(\) \{\n\s+(self\.put_dead_letters[^;]+;)\n\s+\}\n(.*?)(if let Put::Stored \{ \.\. \} = self\.store\.put\(request\.clone\(\)\)\.await\? \{)/$2$3 if !letters.is_empty() { $1 }/s'
mutate 'register the directory before the object' $handler 's/(            self\.catalog\.register\(range\.directory\)\.await\?;\n)(.*?await\?;\n)/$2$1/s'
mutate 'the ledger moves after each range' $handler 's/open\.advance\(stored\.end, range\.directory, stored\.newest_timestamp\)\.await\?;/open.ledger.advance(stored.end, range.directory, stored.newest_timestamp); if pending.from(open.ledger.next_offset).0.is_empty() { open.advance(stored.end, range.directory, stored.newest_timestamp).await?; }/'
mutate 'a range starts at the next offset' $range 's/start: ledger\.next_offset,/start: first.offset,/'
mutate 'directories never go back' $range 's/ledger\.directory\.max\(own\)/own.or(ledger.directory)/'
mutate 'a future timestamp counts for no directory' $range 's/When::Future => None,/When::Future => Some(Directory::of(first.timestamp)),/'
mutate 'look where a future first record would have led' $handler 's/if elsewhere\.directory != key\.directory/if false/'
mutate 'wait while clocks may disagree' $ledger 's/if when == When::Unsure \{/if false {/'
mutate 'stop when the topic was made anew' $ledger 's/if !repeat && when == When::Usual/if !repeat && false/'
mutate 'the epoch fence' $ledger 's/if now\.ledger\.epoch != next\.epoch/if false/'
mutate 'give up when a later life came to be meanwhile' $ledger 's/Some\(open\) if open\.ledger\.epoch != expected\.epoch/Some(open) if false \&\& open.ledger.epoch != expected.epoch/'
mutate 'stop when the ledger was lost' $ledger 's/for directory in directories \{/for directory in directories.iter().take(0) {/'
mutate 'the format is pinned' $ledger 's/if ledger\.format != expected\.format/if false/'
mutate 'the cluster is pinned' $ledger 's/&& theirs != ours/&& theirs != ours && false/'
mutate 'go on only from the version read after a 412' $ledger 's/\*self = now;/self.etag = now.etag;/'
mutate 'no range is begun late' $handler 's/if attempt\.last_start\.is_some_and\(.*?\) \{/if false {/'
mutate 'give up in good time' $handler 's/match attempt\.give_up \{/match None::<Instant> {/'
mutate 'an adopted end must be sound' $handler 's/if theirs\.end < first\.offset \|\| theirs\.end == i64::MAX/if false/'
mutate 'dead letters keyed by content' $key 's/\{start:020\}-\{end:020\}\+\{hash\}/{start:020}/; s/let hash: String = content_sha256.*?;/let _ = (end, content_sha256);/s'
if [ "$survivors" -gt 0 ]; then
    echo "mutations: $survivors survived: the tests do not prove those guards" >&2
    exit 1
fi
