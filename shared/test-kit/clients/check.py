"""Clients that are not ours read what Belfry says: API description, feed, metrics, events.

check.py API ADMIN KAFKA: exits 1 with a reason if one of them cannot.
"""

import datetime
import json
import subprocess
import sys
import time
import urllib.request

import feedparser
from cloudevents.http import from_json
from cloudevents.kafka import KafkaMessage, from_structured
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

api, admin, kafka = sys.argv[1:4]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def post(url, body):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def planned_post():
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
    made = post(f"{api}/api/blog/posts", {"title": "Bells & <whistles>", "content": "*Rung*.", "published_at": at.isoformat()})
    until = time.monotonic() + 10
    while json.loads(get(f"{api}/api/blog/posts/{made['id']}"))["status"] != "published":
        assert time.monotonic() < until, "the post was not published"
        time.sleep(0.05)
    return made["id"]


def description():
    paths = []
    for listener in (api, admin):
        document = json.loads(get(f"{listener}/openapi.json"))
        assert document["openapi"].startswith("3.1"), document["openapi"]
        validate(document)
        paths.append(f"{len(document['paths'])} paths")
    return " and ".join(paths)


def feed():
    read = feedparser.parse(get(f"{api}/api/blog/feed.atom"))
    assert not read.bozo, read.bozo_exception
    entry = read.entries[0]
    assert entry.title == "Bells &amp; &lt;whistles&gt;" or "Bells" in entry.title, entry.title
    assert entry.link.startswith("http") and entry.id and entry.updated_parsed, entry
    return f"{len(read.entries)} entries, version {read.version}"


def metrics():
    families = {family.name for family in text_string_to_metric_families(get(f"{admin}/metrics"))}
    needed = {"http_requests", "http_request_duration_seconds", "background_job_executions", "outbox_pending"}
    assert needed <= families, needed - families
    return f"{len(families)} families"


def events(post_id):
    topic = "blog.post.scheduled.published"
    command = ["kcat", "-C", "-b", kafka, "-t", topic, "-e", "-q", "-f", "%k\t%h\t%s\n"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    for line in lines:
        key, headers, value = line.split("\t", 2)
        if key != post_id:
            continue
        pairs = [part.split("=", 1) for part in headers.split(",")]
        message = KafkaMessage({name: text.encode() for name, text in pairs}, key.encode(), value.encode())
        event = from_structured(message)
        assert event["type"] == topic and event["subject"] == post_id, event
        assert event.data["post_id"] == post_id, event.data
        assert from_json(value)["specversion"] == "1.0"
        return f"{len(lines)} events; ours is {event['id']}"
    raise AssertionError(f"no event of {post_id} among {len(lines)}")


post_id = planned_post()
failed = False
for name, check in [
    ("openapi-spec-validator", description),
    ("feedparser", feed),
    ("prometheus-client", metrics),
    ("kcat and the CloudEvents SDK", lambda: events(post_id)),
]:
    try:
        print(f"{name}: {check()}")
    except Exception as error:  # every client is asked, whatever the others said
        failed = True
        print(f"{name}: FAILED: {error!r}")
sys.exit(1 if failed else 0)
