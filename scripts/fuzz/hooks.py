"""What schemathesis can't take from the document: limits that JSON Schema can't express, and visits as lines."""

import datetime
import json
from urllib.parse import quote, unquote

import schemathesis
from hypothesis import strategies as st

LONGEST = {"segment": 128, "user_id": 256}


def fit_name(name: str, longest: int) -> str:
    """Names are limited in bytes, and JSON Schema counts characters."""
    name = name.encode()[:longest].decode(errors="ignore").strip()
    # Clients resolve these two in a path.
    return "x" if name in ("", ".", "..") else name


def fit_time(seen_at):
    """A visit must not be ahead of the clock, and JSON Schema knows no clock."""
    now = datetime.datetime.now(datetime.UTC)
    if isinstance(seen_at, (int, float)):
        return min(seen_at, now.timestamp())
    if isinstance(seen_at, str) and int(seen_at[:4]) >= now.year:
        return "2000-01-01" + seen_at[10:]
    return seen_at


def fit_visit(visit):
    for field, longest in LONGEST.items():
        if isinstance(visit.get(field), str):
            visit[field] = fit_name(visit[field], longest)
    if isinstance(visit.get("segments"), list):
        visit["segments"] = [fit_name(name, LONGEST["segment"]) for name in visit["segments"]]
    if "seen_at" in visit:
        visit["seen_at"] = fit_time(visit["seen_at"])


def past_time(time):
    """The pattern's times are mostly out of range, or ahead of the clock."""
    times = ["1795341600", "2026-11-22", "2026-11-22T11:00:00+01:00"]
    return times[len(time) % len(times)]


def fit_history(query):
    """It ends after it begins, its steps are multiples of the interval, and there are not too many of them."""
    if "step" in query:
        steps = ["3 hours", "1d", "1week"]
        query["step"] = steps[len(query["step"]) % len(steps)]
        query["to"] = "1795341600"
    if "to" in query:
        query["to"] = past_time(query["to"])
    if "from" in query:
        query["from"] = "2026-11-01T00:00:00Z"


def fit_audience(query):
    """A segment is in one of the lists, they have eight together, and there is an `all` or an `any`."""
    seen = set()
    for parameter in ("all", "any", "none"):
        names = [fit_name(name, LONGEST["segment"]) for name in query.pop(parameter, [])]
        names = [name for name in dict.fromkeys(names) if name not in seen][: 7 - len(seen)]
        seen.update(names)
        if names:
            query[parameter] = names
    if "all" not in query and "any" not in query:
        query["all"] = [next(name for name in "abcdefgh" if name not in seen)]


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Examples of a media type with a strategy must be bytes, which JSON hasn't. The tests in Rust send this one."""
    del raw_schema["paths"]["/segments/batch"]["post"]["requestBody"]["content"]["application/x-ndjson"]["examples"]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Has what is meant to be valid keep the limits that are described in words."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if isinstance(case.body, dict):
        fit_visit(case.body)
    elif isinstance(case.body, list):
        for visit in case.body:
            fit_visit(visit)
    elif isinstance(case.body, bytes):
        # Some lines are no visits, for which a strict batch is 422.
        case.query.pop("strict", None)
    if "name" in case.path_parameters:
        # It is percent-encoded already.
        name = fit_name(unquote(case.path_parameters["name"]), LONGEST["segment"])
        case.path_parameters["name"] = quote(name, safe="")
    if "name" in case.query:
        case.query["name"] = fit_name(case.query["name"], LONGEST["segment"])
    # It is what another answer gave, for the same list.
    case.query.pop("cursor", None)
    if case.path.endswith(("/history", "/history.svg")):
        fit_history(case.query)
    if "/users" in case.path and "from" in case.query:
        # The pattern's dates mostly don't exist.
        user = fit_name(case.query["from"].partition(",")[2], LONGEST["user_id"])
        case.query["from"] = f"2026-11-22T11:00:00.000250101+01:00,{user}"
    if case.path in ("/audience/count", "/pages/audience"):
        fit_audience(case.query)
    if "removed_at" in case.query:
        case.query["removed_at"] = past_time(case.query["removed_at"])
    if "at" in case.query:
        case.query["at"] = "2026-11-21T15:00"
    if "window" in case.query:
        # The pattern's durations are mostly longer than the configured window.
        windows = ["1s", "7d", "36 hours", "1h 30m", "2weeks", "0.5 days"]
        case.query["window"] = windows[len(case.query["window"]) % len(windows)]


@schemathesis.check
def a_batch_rejects_what_is_no_visit(context, response, case):
    """A batch with a bad visit may be 200, but then says so."""
    is_negative = case.meta is not None and case.meta.generation.mode.is_negative
    if is_negative and case.path == "/segments/batch" and case.method == "POST" and response.status_code == 200:
        assert response.json()["rejected"] > 0, "a bad visit was taken"


@schemathesis.deserializer("application/x-ndjson")
def lines(context, response):
    """To the document, the lines of a list are one text."""
    text = response.content.decode()
    *whole, rest = text.split("\n")
    assert not rest and all(list(json.loads(line)) == ["user_id", "last_seen", "expires"] for line in whole), text
    return text


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=30)
TIMES = st.none() | st.floats(-1e12, 1.7e9) | st.just("2024-05-01T10:00:00Z")
SEGMENTS = st.fixed_dictionaries({"segment": NAMES}) | st.fixed_dictionaries({"segments": st.lists(NAMES, min_size=1, max_size=5)})
VISITS = st.builds(dict.__or__, st.fixed_dictionaries({"user_id": NAMES}, optional={"seen_at": TIMES}), SEGMENTS)
LINES = VISITS.map(lambda visit: json.dumps(visit).encode()) | st.binary().filter(lambda line: b"\n" not in line)


@st.composite
def streams(draw):
    """Visits, and anything else, as lines: with one visit at least, since a stream without one is 422."""
    lines = [json.dumps(draw(VISITS), ensure_ascii=draw(st.booleans())).encode(), *draw(st.lists(LINES))]
    return draw(st.sampled_from([b"\n", b"\r\n"])).join(draw(st.permutations(lines)))


schemathesis.openapi.media_type("application/x-ndjson", streams())
