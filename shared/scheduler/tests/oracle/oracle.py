"""Next instants by implementations that are not ours. A question a line, its answer a line.

    RULE <tab> ZONE <tab> EXPRESSION <tab> START <tab> COUNT   ->   seconds since 1970, separated by spaces

RULE is debian (cronsim, which follows Debian's cron across clock changes), literal (cronsim on a clock without a zone,
each match put into the zone by zoneinfo: in the overlap twice, in the gap not at all) or calendar (croniter, in UTC).
The zones come from the tzdata package, never from the machine (PYTHONTZPATH is empty).
"""

import re
import sys
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

import tzdata
from croniter import CroniterBadDateError, croniter
from cronsim import CronSim

UTC = timezone.utc
# Clock changes are not longer than a day; those of three hours and less are what matters for the order of moments.
MARGIN = timedelta(hours=26)


@lru_cache(maxsize=None)
def zone(name):
    return ZoneInfo(name)


def moments(wall, tz):
    """The moments at which the clock shows wall."""
    found = set()
    for fold in (0, 1):
        moment = wall.replace(tzinfo=tz, fold=fold).timestamp()
        if datetime.fromtimestamp(moment, tz).replace(tzinfo=None, fold=0) == wall:
            found.add(int(moment))
    return found


def literal(name, expression, start, count):
    tz = zone(name)
    matches = CronSim(expression, datetime.fromtimestamp(start, tz).replace(tzinfo=None, fold=0) - MARGIN)
    found, end = set(), None
    while end is None or wall <= end:
        wall = next(matches)
        found |= {moment for moment in moments(wall, tz) if moment > start}
        if end is None and len(found) >= count:
            end = wall + MARGIN
    return sorted(found)[:count]


def debian(name, expression, start, count):
    # By Debian's cron(8) only jobs at fixed times are moved, others are "scheduled normally". There cronsim is no oracle:
    # it hops by whole hours, and so leaves the wall clock at changes by half an hour and at gaps from midnight on.
    if "*" in (expression[0], expression.split()[1][0]):
        return literal(name, expression, start, count)
    matches = CronSim(expression, datetime.fromtimestamp(start, zone(name)))
    return [int(next(matches).timestamp()) for _ in range(count)]


def restricted(field):
    return not field.startswith("*")


def calendar(_name, expression, start, count):
    """croniter, whose word for the last Friday is L5 and which wants both days where crontab(5) wants either."""
    fields = [re.sub(r"^([0-7])L$", r"L\1", field) for field in expression.split()]
    alternatives = [fields]
    if restricted(fields[2]) and restricted(fields[4]):
        alternatives = [fields[:2] + ["*"] + fields[3:], fields[:4] + ["*"]]
    begin = datetime.fromtimestamp(start, UTC)
    found = set()
    for fields in alternatives:
        matches = croniter(" ".join(fields), begin)
        try:
            found |= {int(matches.get_next(float)) for _ in range(count)}
        except CroniterBadDateError:
            pass  # this day never comes; the other does
    return sorted(found)[:count]


RULES = {"debian": debian, "literal": literal, "calendar": calendar}

print(tzdata.IANA_VERSION, flush=True)
for line in sys.stdin:
    rule, name, expression, start, count = line.rstrip("\n").split("\t")
    try:
        print(*RULES[rule](name, expression, int(start), int(count)))
    except Exception as error:  # noqa: BLE001: what it cannot do is told, and counted
        print(f"error: {type(error).__name__}: {error}")
