"""Dead letters: the list with its search, one of them, and what is asked before they are replayed or discarded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from urllib.parse import urlencode

from google.protobuf.json_format import MessageToJson, SerializeToJsonError

from modelready.v1 import queue_service_pb2 as pb
from sidecar.operations.dead_letters import Filter, Outcome
from sidecar.publishing.interfaces import StoredDeadLetter
from sidecar.web.layout import Visitor
from sidecar.web.markup import Markup, html, join
from sidecar.web.times import ago, exact

FIELDS = (("text", "Text"), ("reason", "Reason"), ("model", "Model"), ("origin", "Given up by"))
_MAX_SHOWN = 10
_MAX_RAW = 4096

_SEARCH = """<form class="search" role="search" method="get" action="/dead-letters">
{fields}<button>Search</button>
</form>
"""
_FIELD = """<label class="field">{label}<input type="text" name="{name}" value="{value}" \
autocomplete="off"{known}></label>
"""
_TABLE = """<div class="scroll" tabindex="0" role="region" aria-label="Dead letters"><table class="letters">
<caption>{caption}</caption>
<thead><tr>{check}<th scope="col">Event</th><th scope="col">Reason</th>\
<th scope="col">Given up by</th><th scope="col">When</th></tr></thead>
<tbody>{rows}</tbody></table></div>
"""
_ROW = """<tr>{check}<th scope="row"><a href="/dead-letters/{id}">{subject}</a></th>\
<td>{reason}<span class="detail">{detail}</span></td><td>{origin}</td><td class="when">{when}</td></tr>
"""
_CHECK = '<td class="check"><input type="checkbox" name="id" value="{id}" aria-label="Select {subject}, {id}"></td>'
_MEND = """<form method="post" action="/dead-letters/replay">
<input type="hidden" name="csrf" value="{csrf}">
{table}<div class="actions"><button>Replay the selected</button>
<button class="grave" formaction="/dead-letters/discard">Discard the selected</button></div>
</form>
"""
_MEND_ALL = """<form method="post" action="/dead-letters/replay">
<input type="hidden" name="csrf" value="{csrf}"><input type="hidden" name="all" value="yes">{filter}
<div class="actions"><button class="plain">Replay all {that}</button>
<button class="grave" formaction="/dead-letters/discard">Discard all {that}</button></div>
</form>
"""
_LETTER = """<dl class="card story">{rows}</dl>
{mend}<h2>The event</h2>
{content}"""
_MEND_ONE = """<form method="post" action="/dead-letters/replay"><input type="hidden" name="csrf" value="{csrf}">\
<input type="hidden" name="id" value="{id}">
<div class="actions"><button>Replay</button>\
<button class="grave" formaction="/dead-letters/discard">Discard</button></div></form>
"""
_CONFIRM = """<p>{what}</p>
<ul>{some}</ul>
<form method="post" action="/dead-letters/{action}">
<input type="hidden" name="csrf" value="{csrf}"><input type="hidden" name="confirm" value="yes">
<input type="hidden" name="ids" value="{ids}">
{choice}<div class="actions"><button{grave}>{verb} {count}</button> <a href="/dead-letters">Cancel</a></div>
</form>
"""
_CHOICE = """<fieldset><legend>Whom the replayed events reach</legend>
<label><input type="radio" name="target" value="origin" checked> \
The group that gave each up, and it alone; all groups where the sidecar did: {origin}</label>
<label><input type="radio" name="target" value="all"> All groups, and the mirror lists where there are any: \
{everyone}</label>
</fieldset>
"""


def search(selected: Filter, status: pb.GetQueueStatusResponse | None) -> Markup:
    """The form, with what is selected now, and suggestions of what there is."""
    known: dict[str, list[str]] = {}
    if status is not None:
        known["reason"] = [reason.reason for reason in status.dead_letter_reasons]
        known["origin"] = ["sidecar", *(f"group:{group.name}" for group in status.groups)]
    parts = []
    for name, label in FIELDS:
        suggested = known.get(name, [])
        parts.append(html(
            _FIELD, label=label, name=name, value=getattr(selected, name),
            known=html(' list="known-{name}"', name=name) if suggested else Markup(),
        ))  # fmt: skip
        if suggested:
            options = join(html('<option value="{one}"></option>', one=one) for one in suggested)
            parts.append(html('<datalist id="known-{name}">{options}</datalist>', name=name, options=options))
    return html(_SEARCH, fields=join(parts))


def table(letters: Sequence[StoredDeadLetter], visitor: Visitor, caption: str) -> Markup:
    """Dead letters; who may mend them gets a box to tick for each, and what can be done with the ticked ones."""
    check = Markup('<th scope="col"><span class="hidden">Select</span></th>') if visitor.mends else Markup()
    rows = join(_row(letter, visitor) for letter in letters)
    filled = html(_TABLE, caption=caption, check=check, rows=rows)
    return html(_MEND, csrf=visitor.csrf, table=filled) if visitor.mends else filled


def all_that_match(selected: Filter, visitor: Visitor) -> Markup:
    """What can be done with all that a search selects, seen or not."""
    if not visitor.mends:
        return Markup()
    hidden = join(
        html('<input type="hidden" name="{name}" value="{value}">', name=name, value=value)
        for name, value in chosen(selected).items()
    )
    return html(_MEND_ALL, csrf=visitor.csrf, filter=hidden, that="that match" if hidden else "dead letters")


def chosen(selected: Filter) -> dict[str, str]:
    """What the search form has filled in."""
    fields = asdict(selected)
    return {name: fields[name] for name, _ in FIELDS if fields[name]}


def more(selected: Filter, token: str) -> Markup:
    """The link to the next page; nothing where there is none."""
    if not token:
        return Markup()
    query = urlencode({**chosen(selected), "page": token})
    return html('<p><a href="/dead-letters?{query}" rel="next">Older ones</a></p>\n', query=query)


def letter_page(letter: StoredDeadLetter, visitor: Visitor) -> Markup:
    """One, whole: its story, what can be done, the event."""
    rows: list[tuple[str, Markup | str]] = [
        ("Reason", letter.reason),
        ("Detail", letter.detail),
        ("Given up by", letter.origin),
        ("Attempts", f"{letter.attempts:,}"),
        ("First tried", _moment(letter.first_ms)),
        ("Last tried", _moment(letter.last_ms)),
        ("Dead letter since", _moment(letter.dead_ms)),
        ("Event", letter.event_id),
        ("Correlation", letter.correlation_id),
        ("Entry in the stream", letter.entry_id or "none: it never got there"),
        ("Dead letter", letter.id),
    ]
    story = join(html("<dt>{name}</dt><dd>{value}</dd>", name=name, value=value or "-") for name, value in rows)
    mend = html(_MEND_ONE, csrf=visitor.csrf, id=letter.id) if visitor.mends else Markup()
    return html(_LETTER, rows=story, mend=mend, content=_content(letter))


def confirm(
    action: str, letters: Sequence[StoredDeadLetter], csrf: str, *, more_match: bool, replays: Sequence[Outcome]
) -> Markup:
    """Ask before it is done. `replays`: what a replay to the origin, and one to all, would do."""
    count = len(letters)
    if action == "replay":
        what = f"{_these(count)} back into the queue. Replaying twice makes nothing twice."
        choice = html(
            _CHOICE,
            origin=_would(replays[0]),
            everyone=_would(replays[1]),
        )
    else:
        what = f"{_these(count)} for good, and cannot be had back."
        choice = Markup()
    if more_match:
        what += " More may match than can be done at once: these are the oldest of them. Repeat it for the rest."
    some = [
        html("<li>{subject}: {reason}</li>\n", subject=_subject(one), reason=one.reason) for one in letters[:_MAX_SHOWN]
    ]
    if count > _MAX_SHOWN:
        some.append(html("<li>and {count} more</li>\n", count=f"{count - _MAX_SHOWN:,}"))
    return html(
        _CONFIRM,
        what=what,
        some=join(some),
        action=action,
        csrf=csrf,
        ids=",".join(letter.id for letter in letters),
        choice=choice,
        grave=Markup(' class="grave"') if action == "discard" else Markup(),
        verb=action.capitalize(),
        count=_count(count),
    )


def told(action: str, done: Outcome) -> str:
    """What was done, in a line."""
    said = f"{_count(done.done)} {'replayed' if action == 'replay' else 'discarded'}."
    if done.missing:
        said += f" {done.missing:,} had gone already."
    if done.skipped:
        said += f" {done.skipped:,} stay: their group is gone, or their data is not legible."
    return said


def _row(letter: StoredDeadLetter, visitor: Visitor) -> Markup:
    check = html(_CHECK, id=letter.id, subject=_subject(letter)) if visitor.mends else Markup()
    return html(
        _ROW, check=check, id=letter.id, subject=_subject(letter), reason=letter.reason or "-",
        detail=_short(letter.detail), origin=letter.origin or "-", when=ago(letter.dead_ms),
    )  # fmt: skip


def _subject(letter: StoredDeadLetter) -> str:
    return letter.subject or letter.event_id or "not legible"


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _moment(unix_ms: int | None) -> Markup | str:
    return "-" if unix_ms is None else html("{age} ({exact})", age=ago(unix_ms), exact=exact(unix_ms))


def _content(letter: StoredDeadLetter) -> Markup:
    if letter.event is not None:
        try:
            text = MessageToJson(letter.event, preserving_proto_field_name=True, ensure_ascii=False)
        except (ValueError, SerializeToJsonError):  # a time past the year 9999: legible, but not as JSON
            return _pre("The event", str(letter.event))
        return _pre("The event as JSON", text)
    size = len(letter.data)
    said = html(
        "<p>Its data is not legible: {size} bytes, said to be {kind}.</p>\n", size=f"{size:,}",
        kind=letter.content_type or "of no type",
    )  # fmt: skip
    return join([said, _pre("The first bytes of its data", repr(letter.data[:_MAX_RAW])[2:-1])]) if size else said


def _pre(label: str, text: str) -> Markup:
    return html('<pre tabindex="0" role="region" aria-label="{label}">{text}</pre>\n', label=label, text=text)


def _these(count: int) -> str:
    return "This dead letter goes" if count == 1 else f"These {count:,} dead letters go"


def _would(outcome: Outcome) -> str:
    stays = f", {outcome.skipped:,} cannot and stay" if outcome.skipped else ""
    return f"{outcome.done:,} can go back{stays}"


def _count(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


def ids_of(parts: Iterable[str]) -> list[str]:
    """The ids of a form, which has them one by one or with commas between."""
    return [one for part in parts for one in part.split(",") if one]
