"""APScheduler runs jobs each second, spread over it: main.py - fires COUNT; told as shared/test-kit/peers/README.md says.

Settings: its defaults (threads, memory) but for a grace of any length, so that a late run is late and not left out.
"""

import datetime
import sys
import time

from apscheduler.schedulers.background import BackgroundScheduler

FIRST, WINDOW = 3, 10


def ready():
    print("ready", flush=True)
    sys.stdin.readline()


def main():
    count = int(sys.argv[3])
    late = []
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None})
    ready()
    # Jobs are put in before the first of them is due, however long that takes.
    begin = time.time() + FIRST + count / 2_000
    counted = begin + FIRST

    def note(due):
        now = time.time()
        if counted <= now < counted + WINDOW:
            late.append((now - due) % 1 * 1_000)

    for number in range(count):
        due = begin + number / count
        at = datetime.datetime.fromtimestamp(due, datetime.timezone.utc)
        scheduler.add_job(note, "interval", seconds=1, start_date=at, args=(due,))
    scheduler.start()
    time.sleep(max(counted - time.time(), 0))
    print("counting", flush=True)
    time.sleep(max(counted + WINDOW + 1 - time.time(), 0))
    late.sort()
    at = lambda part: late[min(len(late) * part // 100, len(late) - 1)] if late else float("nan")
    print(len(late), at(50), at(99), flush=True)
    ready()
    scheduler.shutdown(wait=False)


main()
