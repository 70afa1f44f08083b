"""The overview: the state in one line, figures, the last hour, groups."""

from __future__ import annotations

import time
from collections.abc import Sequence

from modelready.v1 import queue_service_pb2 as pb
from sidecar.summary import depth, lists, summarize
from sidecar.web.history import Sample
from sidecar.web.markup import Markup, html, join
from sidecar.web.plots import number, plot
from sidecar.web.times import age_of, ago, duration, exact, milliseconds

_STATE = """<div id="state" class="state {level}"><p>{line}</p></div>
<p id="change" class="hidden" role="status"></p>
"""
_LIVE = """<div id="live">
<dl class="numbers">{figures}</dl>
<section aria-labelledby="hour"><h2 id="hour">The last hour</h2>
<div class="plots">{plots}</div>
{table}</section>
<section aria-labelledby="groups"><h2 id="groups">Consumer groups</h2>
{groups}</section>
</div>
<div id="updates" class="actions"></div>
"""
_HOUR = """<details id="hour-table"><summary>The same as a table</summary>\
<div class="scroll" tabindex="0" role="region" aria-label="The last hour as a table"><table>
<caption>One moment in five minutes, the newest first</caption>
<thead><tr><th scope="col">Time (UTC)</th><th scope="col" class="n">Depth</th>\
<th scope="col" class="n">Published a second</th>\
<th scope="col" class="n">Spooled</th></tr></thead>
<tbody>{rows}</tbody></table></div></details>
"""
_GROUPS = """<p class="soft">Each gets every event. Depth: what it has not acknowledged; pending: what its \
consumers have in hand.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Consumer groups"><table class="groups">
<caption class="hidden">Consumer groups</caption>
<thead><tr><th scope="col">Group</th><th scope="col" class="n">Depth</th><th scope="col" class="n">Pending</th>\
<th scope="col" class="n">Consumers</th><th scope="col">Oldest unacknowledged</th>\
<th scope="col">Last asked</th></tr></thead>
<tbody>{rows}</tbody></table></div>
"""
_GROUP = """<tr><th scope="row">{name}</th><td class="n">{depth}</td><td class="n">{pending}</td>\
<td class="n">{consumers}</td><td>{oldest}</td><td>{asked}</td></tr>
"""
_TABLE_SECONDS = 300


def overview(status: pb.GetQueueStatusResponse, samples: Sequence[Sample], *, whole: bool) -> Markup:
    """All but the dead letters. Unless it is to be `whole`, it says what /metrics and /readyz do and no more."""
    deepest = depth(status)
    if not whole:
        status = _without_redis(status)
    line = summarize(status)
    now = time.time()
    # Up to this moment, so that a plot says the same as the figure above it.
    depths = [*((s.at, s.depth) for s in samples), (now, deepest if status.redis_up else None)]
    spooled = [*((s.at, s.spooled) for s in samples), (now, status.spool.depth)]
    plots = [
        plot("depth", "Depth of the slowest group", "events", depths, now),
        plot("rate", "Published", "events/s", [(s.at, s.rate) for s in samples], now, least=0.4),
        plot("spool", "Spooled on this task's disk", "events", spooled, now),
    ]
    body = html(
        _LIVE, figures=_figures(status, deepest), plots=join(plots), table=_table(samples), groups=_groups(status)
    )
    return join([html(_STATE, level=line.partition(":")[0], line=line), body])


def _without_redis(status: pb.GetQueueStatusResponse) -> pb.GetQueueStatusResponse:
    """The same without what is said of the server and of the mirror lists."""
    less = pb.GetQueueStatusResponse()
    less.CopyFrom(status)
    less.ClearField("redis")
    less.ClearField("list")
    less.ClearField("lists")
    return less


def _figures(status: pb.GetQueueStatusResponse, deepest: int) -> Markup:
    spool = status.spool
    known = status.redis_up
    share = spool.bytes / spool.max_bytes if spool.max_bytes else 0.0
    dead = ""
    if status.dead_letters and status.HasField("oldest_dead_letter_at"):
        dead = f"oldest {duration(age_of(milliseconds(status.oldest_dead_letter_at)))} ago"
    rows = [
        ("Depth", f"{deepest:,}" if known else "not known", "of the slowest group" if status.groups else ""),
        ("Dead letters", f"{status.dead_letters:,}" if known else "not known", dead),
        ("Spooled", f"{spool.depth:,}", f"{share:.0%} of its room"),
        ("In the stream", f"{status.stream_length:,}" if known else "not known", _trim(status) if known else ""),
        ("Redis", *_redis(status)),
    ]
    for mirror in lists(status):
        more = f"{mirror.processing:,} in flight, {mirror.dead_letters:,} given up"
        rows.append((f"Mirror list {mirror.name}", f"{mirror.depth:,}", more))
    return join(
        html("<div><dt>{name}</dt><dd>{value}{more}</dd></div>", name=name, value=value, more=_small(more))
        for name, value, more in rows
    )


def _small(text: str) -> Markup:
    return html("<small>{text}</small>", text=text) if text else Markup()


def _trim(status: pb.GetQueueStatusResponse) -> str:
    seconds = status.trim.retention.ToTimedelta().total_seconds()
    return f"kept for {duration(seconds)}" if seconds else "kept for ever"


def _redis(status: pb.GetQueueStatusResponse) -> tuple[str, str]:
    redis = status.redis
    if not redis.HasField("latency"):
        return "up" if status.redis_up else "away", ""
    said = f"round trip {redis.latency.ToNanoseconds() / 1e6:.1f} ms"
    if redis.role == "master":
        said += f", {_count(redis.replicas, 'replica')}"
    return f"{redis.engine} {redis.version}".strip() or "up", said


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _table(samples: Sequence[Sample]) -> Markup:
    if not samples:
        return Markup('<p class="soft">The first figures come within 15 seconds of the start.</p>\n')
    rows: list[Markup] = []
    last = float("inf")
    for sample in reversed(samples):
        if last - sample.at < _TABLE_SECONDS:
            continue
        last = sample.at
        known = ["-" if value is None else number(value) for value in (sample.depth, sample.rate, sample.spooled)]
        cells = join(html('<td class="n">{value}</td>', value=value) for value in known)
        moment = exact(int(sample.at * 1000))[11:19]
        rows.append(html('<tr><th scope="row">{moment}</th>{cells}</tr>\n', moment=moment, cells=cells))
    return html(_HOUR, rows=join(rows))


def _groups(status: pb.GetQueueStatusResponse) -> Markup:
    if not status.redis_up and not status.groups:
        return Markup('<p class="soft">Not known while Redis does not answer.</p>\n')
    if not status.groups:
        return Markup('<p class="soft">No consumer group reads the queue yet.</p>\n')
    return html(_GROUPS, rows=join(_group(group) for group in status.groups))


def _group(group: pb.GroupStatus) -> Markup:
    waits = group.HasField("oldest_unacknowledged_at")
    return html(
        _GROUP,
        name=group.name,
        depth=f"{group.depth:,}",
        pending=f"{group.pending:,}",
        consumers=f"{group.consumers:,}",
        oldest=ago(milliseconds(group.oldest_unacknowledged_at)) if waits else "none",
        asked=f"{duration(group.idle.ToTimedelta().total_seconds())} ago" if group.HasField("idle") else "-",
    )
