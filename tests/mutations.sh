#!/usr/bin/env bash
# Takes each guard of the protocol out, one at a time, in a copy of the sources, and shows what the model finds then
# (tests/exactly_once.py), which tests notice, and after how many seconds of their run the first one does. The table is also
# left in target/mutations.md. Exits with 1 when a mutation survives, or when the model and the tests do not agree on it.
# Usage: tests/mutations.sh [NAME-PATTERN]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
copy=$root/target/mutations
# A target folder of its own: cargo takes a copy of the workspace for the workspace itself, and would leave mutated code in it.
build=$root/target/mutations-build
table=$root/target/mutations.md
pattern=${1:-.}
handler=functions/consumer/src/handler.rs ledger=functions/consumer/src/ledger.rs
range=functions/consumer/src/range.rs key=functions/pipeline/src/lake/key.rs
faults=0
named=' '

fresh_copy() {
    rm -rf "$copy"
    mkdir -p "$copy"
    git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$copy"
    # The other tests would only be compiled.
    perl -ni -e 'print unless /^mod (?!exactly_once|histories|support)/' "$copy/tests/main.rs"
}

# What was compiled of other people's crates serves here too. Ours are left out: their files have the same names in both folders.
seed_build() {
    [[ -d $build || ! -d target/debug/.fingerprint ]] && return
    mkdir -p "$build/debug"
    cp -al target/debug/.fingerprint target/debug/build target/debug/deps "$build/debug/"
    local ours
    for ours in pipeline producer consumer localstack freshet pipeline-tests pipeline_tests; do
        rm -rf "$build"/debug/{.fingerprint,build}/"$ours"-[0-9a-f]* "$build"/debug/deps/{,lib}"$ours"-[0-9a-f]*
    done
}

say() {
    echo "$1" | tee -a "$table"
}

fault() {
    echo "mutations: $1" >&2
    faults=$((faults + 1))
}

# What the model finds when a guard is out, as a cell; empty where it finds nothing.
model_finds() {
    while [ ! -e "$copy/model" ] && kill -0 "$model_process" 2>/dev/null; do sleep 1; done
    awk -F '\t' -v guard="$1" '$1 == guard && $2 != "-" { print $2 ": " $3 ", history " $4 }' "$copy/model"
}

# mutate NAME MODEL FILE PERL-SUBSTITUTION: MODEL is the guard's name in the model, or "-" and why it has none.
mutate() {
    local name=$1 model=$2 file=$3 change=$4 found=''
    [[ $model == -* ]] || named+="$model "
    [[ $name =~ $pattern ]] || return 0
    cp "$root/$file" "$copy/$file"
    perl -0pi -e "$change" "$copy/$file"
    if cmp -s "$root/$file" "$copy/$file"; then
        echo "mutations: '$name' changes nothing in $file: adjust its pattern" >&2
        exit 2
    fi
    local log=$copy/log binary caught=''
    if ! (cd "$copy" && CARGO_TARGET_DIR=$build cargo test --locked --workspace --test pipeline --no-run >"$log" 2>&1); then
        grep -A5 '^error' "$log" | head -20
        echo "mutations: '$name' does not compile" >&2
        exit 2
    fi
    binary=$(sed -n 's/^ *Executable main.rs (\(.*\))$/\1/p' "$log")
    # The time at which a test is said to have failed stands before its name.
    local status=0
    (cd "$copy/tests" && PROPTEST_CASES=${PROPTEST_CASES:-200} PROPTEST_MAX_SHRINK_ITERS=0 timeout 300 "$binary" exactly_once histories 2>&1 |
        perl -MTime::HiRes=time -ne 'BEGIN { $begin = time } printf "%.1f %s\n", time - $begin, $1 if /^test (\S+) \.\.\. FAILED/') >"$log" || status=$?
    # 101: some failed.
    [ $status -eq 0 ] || [ $status -eq 101 ] || fault "'$name': the tests did not come to an end ($status)"
    cp "$root/$file" "$copy/$file"
    local seconds worlds
    seconds=$(sed -n '1s/ .*//p' "$log")
    worlds=$(grep -c ' histories::' "$log" || true)
    caught=$(awk '!/ histories::/ { sub(/.*::/, "", $2); print "`" $2 "`" }' "$log" | sort | head -3 | paste -sd, | sed 's/,/, /g')
    local more=$(($(wc -l <"$log") - worlds - 3))
    [ "$more" -le 0 ] || caught+=", $more more"
    [ "$worlds" -eq 0 ] || caught+="${caught:+, }histories ($worlds of 8 worlds)"
    if [[ $model == -* ]]; then
        found=$model
    else
        found=$(model_finds "$model")
        [ -n "$found" ] || [ -z "$caught" ] || fault "the tests notice '$name', the model does not"
    fi
    [ -n "$caught" ] || fault "'$name' survives: the tests do not prove that guard"
    say "| $name | ${found:-nothing} | ${caught:-nothing} | ${seconds:--} |"
}

# ruled_out NAME MODEL WHY: what the model can do and the consumer cannot be changed to.
ruled_out() {
    named+="$2 "
    [[ $1 =~ $pattern ]] || return 0
    say "| $1 | $(model_finds "$2") | $3 | |"
}

fresh_copy
seed_build
: >"$table"
# While the first mutation is compiled.
(python3 tests/exactly_once.py --find >"$copy/model.part" && mv "$copy/model.part" "$copy/model") &
model_process=$!
say '| guard taken out | the model finds | the tests find | seconds |'
say '|---|---|---|---|'
mutate 'adopt the end: go on behind the first offset instead' adopt $handler 's/end: theirs\.end,/end: first.offset,/'
mutate 'adopt the newest timestamp' newest_in_meta $handler 's/newest_timestamp: theirs\.newest_timestamp/newest_timestamp: None/'
mutate 'adopt only what begins with the same record' same_first $handler 's/if theirs\.first != first/if false/'
mutate 'an object also for a range without rows' guard_object $handler 's/(        \/\/ A first record that lies)/        if rows == 0 { return Ok(Stored { end: range.end, newest_timestamp: range.newest_timestamp }); }\n$1/'
mutate 'dead letters before the object' letters_first $handler 's/        if !letters\.is_empty\(\) \{\n\s+(self\.put_dead_letters[^;]+;)\n\s+\}\n(.*?)(if let Put::Stored \{ \.\. \} = self\.store\.put\(request\.clone\(\)\)\.await\? \{)/$2$3 if !letters.is_empty() { $1 }/s'
mutate 'register the directory before the object' '- (no catalog)' $handler 's/(            self\.catalog\.register\(range\.directory\)\.await\?;\n)(.*?await\?;\n)/$2$1/s'
mutate 'the ledger moves after each range' advance_each $handler 's/open\.advance\(stored\.end, range\.directory, stored\.newest_timestamp\)\.await\?;/open.ledger.advance(stored.end, range.directory, stored.newest_timestamp); if pending.from(open.ledger.next_offset).0.is_empty() { open.advance(stored.end, range.directory, stored.newest_timestamp).await?; }/'
mutate 'a range starts at the next offset' start_at_next $range 's/start: ledger\.next_offset,/start: first.offset,/'
mutate 'directories never go back' forward_dir $range 's/ledger\.directory\.max\(own\)/own.or(ledger.directory)/'
mutate 'a future timestamp counts for no directory' future_dir $range 's/When::Future => None,/When::Future => Some(Directory::of(first.timestamp)),/'
mutate 'look where a future first record would have led' elsewhere $handler 's/if elsewhere\.directory != key\.directory/if false/'
mutate 'wait while clocks may disagree' wait $ledger 's/if when == When::Unsure \{/if false {/'
mutate 'stop when the topic was made anew' made_anew $ledger 's/if !repeat && when == When::Usual/if !repeat && false/'
mutate 'the epoch fence' epoch_fence $ledger 's/if now\.ledger\.epoch != next\.epoch/if false/'
mutate 'give up when a later life came to be meanwhile' later_life $ledger 's/Some\(open\) if open\.ledger\.epoch != expected\.epoch/Some(open) if false \&\& open.ledger.epoch != expected.epoch/'
mutate 'stop when the ledger was lost' '- (nobody deletes)' $ledger 's/for directory in directories \{/for directory in directories.iter().take(0) {/'
mutate 'the format is pinned' '- (one format)' $ledger 's/if ledger\.format != expected\.format/if false/'
mutate 'the cluster is pinned' '- (one cluster)' $ledger 's/&& theirs != ours/&& theirs != ours && false/'
mutate 'go on only from the version read after a 412' reread $ledger 's/\*self = now;/self.etag = now.etag;/'
mutate 'no range is begun late' '- (no deadline)' $handler 's/if attempt\.last_start\.is_some_and\(.*?\) \{/if false {/'
mutate 'give up in good time' '- (no deadline)' $handler 's/match attempt\.give_up \{/match None::<Instant> {/'
mutate 'an adopted end must be sound' '- (nothing is damaged)' $handler 's/if theirs\.end < first\.offset \|\| theirs\.end == i64::MAX/if false/'
mutate 'dead letters keyed by content' letters_by_start_create $key 's/\{start:020\}-\{end:020\}\+\{hash\}/{start:020}/; s/let hash: String = content_sha256.*?;/let _ = (end, content_sha256);/s'
mutate 'the ledger exists before the first object' ledger_first $ledger 's/match put\(store, &key, expected, Condition::Absent\)\.await\? \{/match Ok::<Put, StoreError>(Put::Stored { etag: String::new() })? {/; s/Condition::Matches\(self\.etag\.clone\(\)\)/if self.etag.is_empty() { Condition::Absent } else { Condition::Matches(self.etag.clone()) }/'
mutate 'gaps are said before what lies behind them is stored' gaps_first $handler 's/(            self\.tell_gaps\(&open\.ledger, &range, tally\);\n)(.*?open\.advance\(.*?await\?;\n)/$2$1/s'
mutate 'timestamps of the producers are counted' '- (a count)' $handler 's/create_time_batches: u64::from\(batch/create_time_batches: u64::from(false \&\& batch/'
mutate 'repeats are counted' '- (a count)' $handler 's/duplicates_dropped: batch\.repeated \+ repeated as u64/duplicates_dropped: repeated as u64 * 0/'
ruled_out 'never overwrite an object' create_only 'ruled out by the types: the store has no such PUT'
ruled_out 'never overwrite dead letters' letters_by_start 'ruled out by the types: the store has no such PUT'
ruled_out 'read the ledger for each batch' cached 'ruled out by the types: the handler has no field to keep one in'
# In step: each variant of the model has its row, and each row's variant is the model's.
wait "$model_process"
variants=" $(cut -f 1 "$copy/model" | paste -sd' ') "
for variant in $variants; do
    [[ $named == *" $variant "* ]] || fault "the model's variant '$variant' has no row"
done
for variant in $named; do
    [[ $variants == *" $variant "* ]] || fault "the model has no variant '$variant'"
done
if [ "$faults" -gt 0 ]; then
    echo "mutations: $faults faults: see the lines that begin with mutations:" >&2
    exit 1
fi
