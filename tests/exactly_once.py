#!/usr/bin/env python3
"""Executable model of the consumer protocol in docs/DESIGN.md, one topic-partition.

    tests/exactly_once.py [HISTORIES]           a table: HISTORIES a cell (1000)
    tests/exactly_once.py --find [HISTORIES]    for each guard that is taken out the first history that shows it, of so many
                                                (40000), as lines of guard, what was found, world, number of the history

Each history: a log (offset gaps, hours that change, poison records), an event source that delivers at least once (batches of
any size, forgets attempts that are still alive, redelivers committed offsets), attempts interleaved step by step, halted, killed at
any step, PUTs of dead attempts that land later, two decoder versions at once. The operator does what the messages say. A row
of the table is the protocol, or the protocol with one guard taken out; a column is a world. A cell counts histories in which a
record was stored twice / lost and nobody noticed / could not be stored, or in which a row lies in the wrong hour: one
that was passed, or one that has not come.
"""
import random, sys
from collections import Counter

class Stop(Exception):
    """The attempt fails, and its message names a cure."""

class Store:
    """S3: strongly consistent, atomic conditional PUTs."""
    def __init__(self): self.objects, self.version = {}, 0
    def put(self, key, value, create=False, match=None):
        if create and key in self.objects: return 412
        if match is not None and (key not in self.objects or self.objects[key][1] != match): return 412
        self.version += 1; self.objects[key] = (value, self.version); return 200
    def get(self, key): return self.objects.get(key)

LEDGER = 'ledger'
HOUR, QUARTER = 100, 25
def hour(ts): return ts // HOUR
def when(ts, now):
    """As functions/consumer/src/range.rs judges a timestamp."""
    return 'future' if ts - now > HOUR + QUARTER else 'unsure' if ts - now >= HOUR - QUARTER else 'usual'

PROTOCOL = dict(
    ledger_first=True,      # the ledger exists before the first data object
    later_life=True,        # an attempt that found no ledger gives up when one of a later epoch came to be
    made_anew=True,         # a stored offset with a timestamp later than any stored stops the partition
    wait=True,              # a timestamp about an hour ahead waits until every clock agrees
    future_dir=True,        # a first record in the future chooses no directory
    elsewhere=True,         # before a new directory is used, a look where the range would have gone without its first record
    gaps_first=True,        # offsets that were never delivered are said before anything behind them is stored
    adopt=True,             # on 412 go on behind the stored range's end (False: skip one offset)
    create_only=True,       # data objects are never overwritten
    guard_object=True,      # a range without a good record writes its object all the same
    letters_first=True,     # dead letters are stored before the object
    start_at_next=True,     # a range starts at next_offset, not at its first record
    advance_each=True,      # the ledger moves after every range, not once at the end
    reread=True,            # after a 412 on the ledger the attempt goes on from what it reads
    forward_dir=True,       # a partition's directory never goes back: max(ledger's, hour of the range's first record)
    newest_in_meta=True,    # an adopted range's newest timestamp comes from its metadata
    epoch_fence=True,       # an attempt that sees another epoch than the one it began with stops
    same_first=True,        # an adopted range must begin with the very same record
    letters='by_content',   # dead-letter key: by_content | by_start (overwritten) | by_start_create
    cached=False,           # ledger kept between batches of one container
)

def handler(s3, batch, cache, poison, now, say, p):
    """One attempt at a batch [(offset, timestamp, life)]; each yield is a step at which it can be delayed or killed.
    A yielded function is a request on the wire: it may land after the attempt has died."""
    led = cache.get('led') if p['cached'] else None
    if led is None: yield None; led = s3.get(LEDGER)
    state = {'next': batch[0][0], 'epoch': 0, 'newest': -1, 'dir': -9}
    if led is None and p['ledger_first']:
        first = dict(state)
        request = lambda: s3.put(LEDGER, first, create=True)
        yield request
        if request() == 412:
            yield None
            if p['later_life'] and s3.get(LEDGER)[0]['epoch'] != 0: raise Stop('later life')
        led = s3.get(LEDGER)
    cache['led'] = led
    if led: state = dict(led[0])
    epoch, version = state['epoch'], led[1] if led else None
    if p['wait'] and any(when(ts, now) == 'unsure' for _, ts, _ in batch): raise Stop('wait')
    anew = [ts for o, ts, _ in batch if o < state['next'] and ts > state['newest'] and when(ts, now) == 'usual']
    if p['made_anew'] and anew: raise Stop('made anew', max(anew))
    recs = [r for r in batch if r[0] >= state['next']]
    if len(recs) < len(batch): say('repeats', batch)

    def advance():
        nonlocal version, state
        while True:
            want = dict(state)
            request = (lambda: s3.put(LEDGER, want, create=True)) if version is None else (lambda m=version: s3.put(LEDGER, want, match=m))
            yield request
            ok = request() == 200
            if not ok: yield None
            there = s3.get(LEDGER); version = there[1]; cache['led'] = there
            if p['epoch_fence'] and there[0]['epoch'] != epoch: raise Stop('epoch moved')
            if ok: return
            if p['reread']: state = dict(there[0])
            if state['next'] >= want['next'] and p['reread']: return
            state = {k: max(want[k], state[k]) for k in state} | {'epoch': state['epoch']}

    while recs:
        pos = state['next'] if p['start_at_next'] else recs[0][0]
        first = recs[0]
        h = hour(first[1]) if when(first[1], now) != 'future' or not p['future_dir'] else -9
        if p['forward_dir'] or h == -9: h = max(h, state['dir'])
        h, run = max(h, 0), []
        for r in recs:
            if when(r[1], now) != 'future' and (hour(r[1]) > h if p['forward_dir'] else hour(r[1]) != h) and r is not first: break
            run.append(r)
        end = run[-1][0]
        usual = [ts for _, ts, _ in run if when(ts, now) != 'future']
        newest = max(usual, default=-1)
        gap = pos + len(run) <= end
        if gap and p['gaps_first']: say('gap', (first[2], pos, end))
        bad = [r for r in run if r[0] in poison or when(r[1], now) == 'future']; good = [r for r in run if r not in bad]
        def letters():
            if not bad: return
            key = f'dead/{epoch}/{pos}' + (f'-{end}-{bad}' if p['letters'] == 'by_content' else '')
            request = lambda k=key, b=tuple(bad): s3.put(k, {'letters': b}, create=p['letters'] == 'by_start_create')
            yield request; request()
        if p['letters_first']: yield from letters()
        name = lambda h: f'{h}/e{epoch}+{pos:020d}'
        value = {'start': pos, 'end': end, 'rows': tuple(good), 'newest': newest, 'first': first[:2], 'dir': h, 'epoch': epoch}
        there, stored = None, False
        if p['elsewhere'] and max(state['dir'], 0) != h:
            yield None; there = s3.get(name(max(state['dir'], 0)))
        if there is None and (good or p['guard_object']):
            request = lambda k=name(h), v=value: s3.put(k, v, create=p['create_only'])
            yield request
            if request() == 412: yield None; there = s3.get(name(h))
            else: stored = True
        if there:
            there = there[0]
            if p['same_first'] and there['first'] != first[:2]:
                raise Stop('another log' if there['first'][0] == first[0] else 'records are gone')
            if p['adopt']:
                end = there['end']
                newest = there['newest'] if p['newest_in_meta'] else -1
            else: end = pos
        elif not p['letters_first'] and stored: yield from letters()
        yield None
        state |= {'next': max(end + 1, state['next']), 'newest': max(newest, state['newest']), 'dir': max(h, state['dir'])}
        recs = [r for r in recs if r[0] >= state['next']]
        if p['advance_each'] or not recs: yield from advance(); recs = [r for r in recs if r[0] >= state['next']]
        if gap and not p['gaps_first']: say('gap', (first[2], pos, end))
    return True

def rebuild(s3):
    """`freshet ledger rebuild`, after the ledger was deleted: behind all objects, also where two overlap."""
    data = [v for v, _ in s3.objects.values() if 'rows' in v]
    data = [v for v in data if v['epoch'] == max(v['epoch'] for v in data)]
    return {'next': max(v['end'] for v in data) + 1, 'epoch': data[0]['epoch'], 'newest': max(v['newest'] for v in data), 'dir': max(v['dir'] for v in data)}

def history(seed, p, backwards=False, lives=1, behind=None, expire=False, compact=False, create_time=False):
    """What is wrong at the end of one history, or None."""
    r = random.Random(seed); n = r.randint(3, 40); s3 = Store()
    now = start = 6000 if create_time else 10 ** 9
    def make_log(t, life):
        o, log = r.choice([0, 0, 5]) if life == 0 else 0, []
        for _ in range(n):
            t += r.choice([0, 1, 3, 40]); ts = t
            if backwards or create_time: ts += r.randint(-150, 150)
            if create_time and r.random() < .15: t = ts = max(500, t + r.randint(-2500, 2000))
            if create_time and r.random() < .1: ts = now + r.choice([r.randint(-50, 250), r.randint(110, 160)])
            log.append((o, ts, life))
            o += 1 + (r.randint(1, 3) if r.random() < .08 else 0)
        return log
    logs = [make_log(1000, 0)]
    if lives == 2:
        last = max(ts for _, ts, _ in logs[0])
        logs.append(make_log(100000 if behind is None else max(500, last - r.randint(*behind)), 1))
    poisons = [{x for x in range(200) if r.random() < .15} for _ in range(2)]
    caches, busy, live, late, gone = [{} for _ in range(3)], set(), [], [], set()
    heard, early = {'gap': [], 'repeats': []}, r.choice([.003, .003, .05])
    say = lambda what, it: heard[what].append(it)
    at, source, current, stops, in_a_row, plan, first_ledger = 0, 0, None, 0, 0, None, None
    def end_of(a):
        nonlocal current
        live.remove(a); busy.discard(a['slot'])
        if current is a: current = None
    def kill(a):
        if a['wire'] and r.random() < .5: late.append((a['wire'], a['now']))
        a['g'].close()
        if a['slot'] != 'new': caches[a['slot']].clear()
        end_of(a)
    def pass_time(units):
        """An attempt lives for a quarter of an hour at most, and so long S3 takes a request that was signed."""
        nonlocal now
        now += units
        for a in [a for a in live if a['now'] < now - QUARTER]: kill(a)
        late[:] = [(request, begun) for request, begun in late if begun >= now - 2 * QUARTER]
    def reset():
        nonlocal stops, in_a_row
        s3.put(LEDGER, s3.get(LEDGER)[0] | {'next': logs[at][0][0], 'epoch': at, 'newest': -1}); stops = in_a_row = 0
    for tick in range(30000):
        log = logs[at]; n = len(log)
        # The topic is made anew once its records are consumed, or in the middle of it: what nobody has consumed is gone.
        if at + 1 == len(logs) and source >= n and not live: break
        if at + 1 < len(logs) and source and r.random() < (early if source < n else .05 if live else 1):
            logs[at] = log[:source]; at, source, current, plan = at + 1, 0, None, None; continue
        # The newest record always stays.
        if expire and r.random() < .01: gone |= set(range(min(n - 1, source + r.randint(-4, 5))))
        if compact and r.random() < .03: gone |= {min(n - 2, max(0, source + r.randint(-6, 9)))}
        if create_time and r.random() < .03: pass_time(r.choice([5, 10, 15, 20, 150]))
        if first_ledger is None and s3.get(LEDGER): first_ledger = s3.get(LEDGER)[0]['next']
        if plan and not live:
            if plan == 'wait': pass_time(HOUR // 2)
            # What was taken for repeats is delivered again.
            if plan == 'reset': reset(); source = 0
            if plan == 'rebuild':
                s3.objects.pop(LEDGER); s3.put(LEDGER, rebuild(s3)); [cache.clear() for cache in caches]
            plan, in_a_row = None, 0
        if current is None and plan is None and source < n and r.random() < .5:
            s = source
            if r.random() < .1: s = max(0, s - r.randint(1, 8))
            places = [i for i in range(s, n) if i not in gone][:r.randint(1, 15)]
            slot = r.choice([c for c in range(3) if c not in busy] + ['new']); cache = caches[slot] if slot != 'new' else {}
            batch = [log[i] for i in places]
            current = dict(g=handler(s3, batch, cache, poisons[r.randrange(2)], now, say, p), e=places[-1], slot=slot, wire=None, at=at, steps=0, now=now, asleep=0)
            busy.add(slot); live.append(current)
        if late and r.random() < .05: late.pop(r.randrange(len(late)))[0]()
        if current is not None and r.random() < .03: current = None       # the event source forgets it; it lives on
        awake = [a for a in live if a['asleep'] < tick]
        if not awake: continue
        a = r.choice(awake)
        if r.random() < .03: kill(a); continue
        if r.random() < .05: a['asleep'] = tick + r.randint(10, 200); continue
        try: a['wire'] = next(a['g']); a['steps'] += 1
        except StopIteration:
            stops = in_a_row = 0
            if current is a and a['at'] == at and r.random() > .05: source = max(a['e'] + 1, source)
            end_of(a)
        except Stop as stop:
            end_of(a)
            stops += 1; in_a_row += 1
            if stops > 150: return 'stuck'
            if a['at'] != at: continue
            # The operator.
            why, led = stop.args[0], s3.get(LEDGER)
            if why in ('made anew', 'another log', 'records are gone') and led and led[0]['epoch'] < at:
                # The event source is off: no attempt of the old topic begins to read any more.
                if source: plan = 'reset'
                elif not any(b['at'] < at and b['steps'] < 2 for b in live): reset()
            elif why == 'made anew':
                # A false alarm: of a record that lay in the future, or that was gone before the ledger came to be.
                if not (create_time or expire or compact): return 'stuck'
                s3.put(LEDGER, led[0] | {'newest': max(led[0]['newest'], stop.args[1])})
            elif why == 'records are gone':
                if not (expire or compact or behind): return 'stuck'
                if in_a_row > 1: plan = 'rebuild'
            elif why == 'wait': plan = 'wait'
    else: return 'stuck'
    for request, _ in late: request()
    rows, letters = Counter(), set()
    for v, _ in s3.objects.values():
        # What a topic made anew had stored before anybody noticed, its reset stores once more, in the next epoch.
        rows.update((v['epoch'] if behind else 0, record) for record in v.get('rows', ())); letters.update(v.get('letters', ()))
    # Where records are gone, two attempts can choose two hours for one start, and with them where the next range starts: in a
    # range that was said to have gaps, and behind it.
    # Of a topic made anew that looks like the old one repeats were said.
    gap = lambda record: any(begin <= record[0] for _, begin, end in heard['gap'])
    mixed = behind and any(batch[0][2] == 1 for batch in heard['repeats'])
    if any(c > 1 and not mixed and not ((expire or compact) and gap(x[1])) for x, c in rows.items()): return 'duplicate'
    rows = {record for _, record in rows}
    for life, log in enumerate(logs):
        for place, record in enumerate(log):
            o = record[0]
            if record in rows or record in letters: continue
            said = place in gone and any(of == life and begin <= o <= end for of, begin, end in heard['gap'])
            # What was gone before the first ledger came to be: nothing says where a topic once began.
            before = place in gone and (first_ledger is None or o < first_ledger)
            if not said and not before and not (behind and any(record in batch for batch in heard['repeats'])): return 'loss'
    # An hour that was passed changed again, or one was written to that is not yet there.
    data = sorted((v['epoch'], v['start'], v['dir']) for v, _ in s3.objects.values() if 'rows' in v)
    if any(h > hour(now + HOUR + QUARTER) for _, _, h in data) or not mixed and any(a[0] == b[0] and a[2] > b[2] for a, b in zip(data, data[1:])): return 'hour'

# In the first three nothing may be lost or doubled: two keep the conditions, and a topic made anew with later timestamps is noticed.
WORLDS = {'timestamps only rise': {}, 'timestamps go back': dict(backwards=True), 'topic made anew': dict(lives=2),
    'records expire': dict(expire=True), 'records are compacted away': dict(compact=True), 'CREATE_TIME': dict(create_time=True),
    'CREATE_TIME, topic made anew': dict(create_time=True, lives=2, behind=(0, 3000)),
    'topic made anew, clock behind': dict(lives=2, behind=(0, 150))}
# By the names that tests/mutations.sh has for them.
VARIANTS = {'ledger_first': dict(ledger_first=False), 'later_life': dict(later_life=False), 'made_anew': dict(made_anew=False),
    'wait': dict(wait=False), 'future_dir': dict(future_dir=False), 'elsewhere': dict(elsewhere=False), 'gaps_first': dict(gaps_first=False),
    'adopt': dict(adopt=False), 'create_only': dict(create_only=False), 'guard_object': dict(guard_object=False),
    'letters_first': dict(letters_first=False), 'start_at_next': dict(start_at_next=False), 'advance_each': dict(advance_each=False),
    'reread': dict(reread=False), 'forward_dir': dict(forward_dir=False), 'newest_in_meta': dict(newest_in_meta=False),
    'epoch_fence': dict(epoch_fence=False), 'same_first': dict(same_first=False), 'letters_by_start': dict(letters='by_start'),
    'letters_by_start_create': dict(letters='by_start_create'), 'cached': dict(cached=True)}
KINDS = ['duplicate', 'loss', 'stuck', 'hour']

def table(total):
    print('stored twice / lost in silence / stuck / wrong hour, of', total)
    print(f'{"":24s}' + ''.join(f'{w:>31s}' for w in WORLDS))
    for name, change in {'the protocol': {}, **VARIANTS}.items():
        cells = []
        for world in WORLDS.values():
            found = Counter(history(seed, {**PROTOCOL, **change}, **world) for seed in range(total))
            cells.append('/'.join(str(found[kind]) for kind in KINDS))
        print(f'{name:24s}' + ''.join(f'{c:>31s}' for c in cells), flush=True)

def find(total):
    worlds = list(WORLDS.items())
    # What nobody has taken anything out of finds nothing.
    for number in range(min(total, 4000)):
        world, conditions = worlds[number % len(worlds)]
        kind = history(number // len(worlds), PROTOCOL, **conditions)
        if kind: sys.exit(f'the protocol itself: {kind} in {world}, history {number + 1}')
    for name, change in VARIANTS.items():
        for number in range(total):
            world, conditions = worlds[number % len(worlds)]
            kind = history(number // len(worlds), {**PROTOCOL, **change}, **conditions)
            if kind: print(name, kind, world, number + 1, sep='\t', flush=True); break
        else: print(name, '-', '-', total, sep='\t', flush=True)

if __name__ == '__main__':
    numbers = [int(x) for x in sys.argv[1:] if x.isdigit()]
    find(*numbers or [40000]) if '--find' in sys.argv else table(*numbers or [1000])
